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

import numpy as np

from at_jax import paths
from at_jax.data import png
from at_jax.data.formats import FORMATS, HEAD, READABLE, is_sixteen_bit_png, recognize
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
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF tag; its values that exchange height and width
_FIX = "replace or remove the file"
# For the files of a data set.
FIX_OF_FOLDER = f"{_FIX}, or set data.skip_corrupt=True"


class _TooLarge(Exception):
    """An image that is beyond a bound; the text says which, and what to do."""


class _OtherFormat(Exception):
    """A file that is no image, or of a format that is not read."""


def read_image(path: str | os.PathLike[str], depth: int = MAX_DEPTH, *, fix: str = _FIX) -> Any:
    """Read a JPEG, PNG, WebP, BMP or GIF file; of an animation the first picture.

    Args:
      path: file, local or in cloud storage.
      depth: bits of the values in 16-bit PNG files, 8 to 16; larger values become 255.
      fix: what the error asks for.

    Returns:
      A PIL image of mode RGB.

    Raises:
      UserError: naming the file, if it is no regular file, of another format, damaged, or too large.
    """
    try:
        return decode(read_bytes(path), depth)
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
    return UserError(f"{subject}: expected a readable {READABLE}, got {reason}: {fix}")


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


def decode(content: bytes, depth: int = MAX_DEPTH) -> Any:
    """Decode the content of an image file, as :func:`read_image`.

    Raises:
      Exception: of any type, for bad content.
    """
    with _opened(content) as image:
        if is_sixteen_bit_png(content):
            values, opacity = png.sixteen_bit_values(content, image)
            rgb = _from_sixteen_bits(values, opacity, depth)
        else:
            image.load()
            rgb = _to_rgb(image, content)
        return _upright(rgb, image)


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
            _from_sixteen_bits(values, opacity, MAX_DEPTH)
        else:
            # A JPEG may leave out the inverse transforms; all of its data is still read.
            image.draft("L", (1, 1))
            image.load()
            _to_rgb(image, content)
        return largest, size[::-1] if _orientation(image) in _TURNED else size


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
            "down, or raise that bound in a program of your own"
        ) from error
    with image, _room(image.width * image.height):
        yield image


def _from_sixteen_bits(values: np.ndarray, opacity: np.ndarray | None, depth: int) -> Any:
    from PIL import Image

    # In place: a large image has several copies already.
    values = np.minimum(np.right_shift(values, np.uint16(depth - 8), out=values), np.uint16(255))
    colors = values.astype(np.uint8)
    image = Image.fromarray(colors if colors.shape[-1] == 3 else colors[..., 0]).convert("RGB")
    if opacity is None:
        return image
    return _over_white(image, Image.fromarray((opacity >> np.uint16(8)).astype(np.uint8)))


def _to_rgb(image: Any, content: bytes) -> Any:
    if not image.has_transparency_data:
        return image.convert("RGB")
    key = image.info.get("transparency")
    # A gray PNG of 2 or 4 bits is widened to 8; its transparent value is not.
    if image.mode == "L" and isinstance(key, int) and image.format == "PNG":
        image.info["transparency"] = key * 255 // (2 ** png.bits(content) - 1)
    rgba = image.convert("RGBA")
    return _over_white(rgba.convert("RGB"), rgba.getchannel("A"))


def _over_white(image: Any, opacity: Any) -> Any:
    from PIL import Image

    result = Image.new("RGB", image.size, "white")
    result.paste(image, mask=opacity)
    return result


def _upright(rgb: Any, image: Any) -> Any:
    """Turn a picture as the metadata of `image` says, which viewers do."""
    from PIL import Image

    turns = Image.Transpose
    methods = {
        2: turns.FLIP_LEFT_RIGHT, 3: turns.ROTATE_180, 4: turns.FLIP_TOP_BOTTOM, 5: turns.TRANSPOSE,
        6: turns.ROTATE_270, 7: turns.TRANSVERSE, 8: turns.ROTATE_90,
    }  # fmt: skip
    method = methods.get(_orientation(image))
    return rgb if method is None else rgb.transpose(method)


def _orientation(image: Any) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Damaged metadata: the picture is shown as it is stored.
        return 1


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
