"""Reading an image file: for training, prediction and figures alike.

The format is recognized by content, and only the decoder of that format sees the file. The result is RGB,
upright (EXIF orientation), with transparency composited over white.
"""

import contextlib
import io
import os
import re
import stat
import threading
from collections.abc import Iterator
from typing import Any

from at_jax import paths
from at_jax.data.crops import Box, Crop, cut, decoded_size
from at_jax.data.files import png
from at_jax.data.files.formats import FORMATS, HEAD, READABLE, is_sixteen_bit_png, recognize
from at_jax.data.files.upright_rgb import TURNED, from_sixteen_bits, orientation, to_rgb, upright
from at_jax.errors import UserError, printable

__all__ = [
    "FIX_OF_FOLDER",
    "MAX_DEPTH",
    "decode",
    "examine",
    "read_bytes",
    "read_image",
    "unreadable",
]

MAX_DEPTH = 16  # bits
_MAX_BYTES = 2**30  # of a file
_MAX_PIXELS_AT_ONCE = 2**27  # over all threads; decoding takes 8 to 30 bytes for each
_FIX = "replace or remove the file"
# For the files of a data set.
FIX_OF_FOLDER = f"{_FIX}, or set data.skip_corrupt=True"


class _TooLarge(Exception):
    """An image that is beyond a bound; the text says which, and what to do."""


class _OtherFormat(Exception):
    """A file that is no image, or of a format that is not read."""


def read_image(
    path: str | os.PathLike[str],
    depth: int = MAX_DEPTH,
    *,
    crop: Crop | None = None,
    fix: str = _FIX,
) -> Any:
    """Read a JPEG, PNG, WebP, BMP or GIF file; of an animation the first picture.

    Args:
      path: file, local or in cloud storage.
      depth: bits of the values in 16-bit PNG files, 8 to 16; larger values become 255.
      crop: the part that is wanted. A JPEG is then decoded at the smallest scale that has its pixels.
      fix: what the error asks for; empty for nothing.

    Returns:
      A PIL image of mode RGB.

    Raises:
      UserError: naming the file, if it is no regular file, of another format, damaged, or too large.
    """
    try:
        return decode(read_bytes(path), depth, crop)
    # PIL raises many types for a bad file: OSError, SyntaxError (PNG), ValueError, struct.error ...
    except Exception as error:
        raise unreadable(path, error, fix) from error


def unreadable(path: str | os.PathLike[str], error: Exception, fix: str = _FIX) -> UserError:
    """The error for a file that cannot be read, in one line."""
    subject = f"image {printable(os.fspath(path))}"
    if isinstance(error, _TooLarge):
        return UserError(f"{subject}: {error}")
    if isinstance(error, MemoryError):
        return UserError(f"{subject}: expected memory to decode it, got none: scale it down")
    if isinstance(error, _OtherFormat):
        reason = str(error)
    else:
        # Without the path, which the message of an OSError repeats.
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        details = f" ({printable(' '.join(text.split()))[:200]})" if text else ""
        reason = type(error).__name__ + details
    return UserError(
        f"{subject}: expected a readable {READABLE}, got {reason}{f': {fix}' if fix else ''}"
    )


def read_bytes(path: str | os.PathLike[str], most: int = _MAX_BYTES + 1) -> bytes:
    """Return the content of a regular file, at most its first `most` bytes.

    A named pipe or a device is never opened: reading it may not end.

    Raises:
      OSError: if the file cannot be read, or is no regular file.
    """
    if paths.scheme(path):
        with paths.parse(path).open("rb") as file:
            return file.read(most)
    _check_regular(os.stat(path))
    # Should a pipe take the file's place in between, opening it does not wait.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        _check_regular(os.fstat(file.fileno()))
        return file.read(most)


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _OtherFormat("no regular file")


def decode(content: bytes, depth: int = MAX_DEPTH, crop: Crop | None = None) -> Any:
    """Decode the content of an image file, as :func:`read_image`.

    Raises:
      Exception: of any type, for bad content.
    """
    with _opened(content) as image:
        whole = _scaled_down(image, crop) if crop is not None and image.format == "JPEG" else None
        if is_sixteen_bit_png(content):
            values, opacity = png.sixteen_bit_values(content, image)
            rgb = from_sixteen_bits(values, opacity, depth)
        else:
            image.load()
            rgb = to_rgb(image, content)
        picture = upright(rgb, image)
        if crop is None:
            return picture
        width, height = whole or picture.size
        box = crop.box(width, height)
        if whole not in (None, picture.size):
            x, y = picture.width / width, picture.height / height
            box = Box(box.left * x, box.top * y, box.right * x, box.bottom * y)
        return cut(picture, crop, box)


def _scaled_down(image: Any, crop: Crop) -> tuple[int, int]:
    """Have a JPEG decoded at the smallest scale that has the pixels of a crop.

    Returns:
      (width, height) of the upright picture at its own scale.
    """
    turned = orientation(image) in TURNED
    width, height = size = image.size[::-1] if turned else image.size
    needed = decoded_size(crop, crop.box(width, height), width, height)
    image.draft(None, needed[::-1] if turned else needed)
    return size


def examine(content: bytes) -> tuple[int, tuple[int, int]]:
    """Decode the content of a file to find damage.

    Returns:
      The largest value of a 16-bit PNG, 0 for any other file; and (width, height) of the upright picture.

    Raises:
      Exception: of any type, for bad content.
    """
    with _opened(content) as image:
        size, largest = image.size, 0
        if is_sixteen_bit_png(content):
            values, opacity = png.sixteen_bit_values(content, image)
            largest = int(values.max())
            from_sixteen_bits(values, opacity, MAX_DEPTH)
        else:
            # A JPEG may leave out the inverse transforms; all of its data is still read.
            image.draft("L", (1, 1))
            image.load()
            to_rgb(image, content)
        return largest, size[::-1] if orientation(image) in TURNED else size


@contextlib.contextmanager
def _opened(content: bytes) -> Iterator[Any]:
    """The picture, with its size known and its pixels not decoded."""
    from PIL import Image

    if len(content) > _MAX_BYTES:
        raise _TooLarge(
            f"expected a file of at most {_MAX_BYTES:,} bytes, got a larger one: scale the image down"
        )
    found = recognize(content[:HEAD])
    if found not in FORMATS:
        raise _OtherFormat(f"a file that is {found}")
    if found == "PNG":
        png.check(content)
    try:
        image = Image.open(io.BytesIO(content), formats=(found,))
    except Image.UnidentifiedImageError:
        raise ValueError(f"damaged at the beginning of the {found}") from None
    except Image.DecompressionBombError as error:
        number = re.search(r"\d+", str(error))
        raise _TooLarge(
            f"expected at most {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels (twice "
            f"PIL.Image.MAX_IMAGE_PIXELS), got {int(number[0]) if number else 0:,}: scale the image "
            "down, or raise that limit in your own program"
        ) from error
    with image, _room(image.width * image.height):
        yield image


_pixels_decoded = 0  # over all threads
_decoded_less = threading.Condition()


@contextlib.contextmanager
def _room(pixels: int) -> Iterator[None]:
    """Wait until no more than `_MAX_PIXELS_AT_ONCE` pixels are decoded; a larger image is decoded alone."""
    global _pixels_decoded
    pixels = min(pixels, _MAX_PIXELS_AT_ONCE)
    with _decoded_less:
        _decoded_less.wait_for(lambda: _pixels_decoded + pixels <= _MAX_PIXELS_AT_ONCE)
        _pixels_decoded += pixels
    try:
        yield
    finally:
        with _decoded_less:
            _pixels_decoded -= pixels
            _decoded_less.notify_all()
