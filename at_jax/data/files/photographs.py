"""Photographs outside a data set, of any size, for prediction and figures."""

import collections
import contextlib
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from at_jax import paths
from at_jax.data import crops
from at_jax.data.files import listing, reading
from at_jax.data.files.inspection import may_be_image, report
from at_jax.data.threads import in_threads
from at_jax.errors import UserError, printable

__all__ = ["class_of", "find", "fit", "open_photograph", "read", "read_files", "roots"]


def find(name: str, *, subject: str) -> list[str]:
    """Return the image files in a directory, at any depth and sorted by name; or the name of a file.

    Files of other formats are left out of a directory, with a line on stderr.

    Args:
      name: of a directory or a file.
      subject: of the error message: the flag or argument that named it.

    Raises:
      UserError: if a directory has no images, or cannot be read.
    """
    directory = paths.parse(name)
    if not directory.is_dir():
        return [name]
    skipped: listing.Skipped = collections.Counter()
    found = []
    for file in listing.files_below(directory, skipped):
        if may_be_image(file):
            found.append(file.path)
        else:
            skipped["of another format"] += 1
    line = listing.skipped_line(skipped)
    if not found:
        raise UserError(
            f"{subject}: expected a directory with {reading.READABLE}, got none in {printable(name)}"
            f"{line and f' ({line})'}: convert the files, or name another directory"
        )
    if line:
        report(f"note: {printable(name)}: {line}")
    return found


def roots(named: Iterable[str]) -> tuple[str, ...]:
    """Normalize the directories among files and directories that the user named, for :func:`class_of`.

    A name that is no valid path is left out: it is reported where it is read.
    """
    found = []
    for name in named:
        with contextlib.suppress(UserError):
            if paths.parse(name).is_dir():
                found.append(os.path.join(_normalized(name), ""))
    return tuple(found)


def class_of(
    path: str | os.PathLike[str], class_names: Sequence[str], below: tuple[str, ...] = ()
) -> int | None:
    """Index of the class of a file, by the name of its directory; None if that is no class.

    In a directory that the user named, a file may be at any depth below the directory of its class, as in
    a data set.

    Args:
      path: of the file.
      class_names: by label.
      below: result of :func:`roots`.

    >>> class_of("test/cat/1.jpg", ["cat", "dog"]), class_of("photos/1.jpg", ["cat", "dog"])
    (0, None)
    """
    directory = os.path.dirname(_normalized(path))
    names = [listing.normal(name) for name in class_names]  # those of arrays may have another form
    while True:
        if (name := listing.normal(os.path.basename(directory))) in names:
            return names.index(name)
        parent = os.path.dirname(directory)
        if parent == directory or not directory.startswith(below):
            return None
        directory = parent


def _normalized(path: str | os.PathLike[str]) -> str:
    # Not resolved: a link to a file is in the directory of the link, as in a data set.
    return os.path.normpath(paths.absolute(path))


def read(
    path: str | os.PathLike[str],
    image_shape: tuple[int, int, int],
    *,
    subject: str,
    bit_depth: int = reading.MAX_DEPTH,
    resize: int = 0,
) -> np.ndarray:
    """Read a photograph as a network takes it: its center, resized as in training.

    Args:
      path: of the file.
      image_shape: (H, W, C) of the network.
      subject: of the error messages: the flag or argument that named the file.
      bit_depth: of 16-bit files; that of the data set that the network was trained on.
      resize: pixels of the shorter side before the center is cropped; see ``Dataset.resize``.

    Returns:
      uint8 ``(H, W, C)``.

    Raises:
      UserError: if the file is missing, or is no image.
    """
    height, width, channels = image_shape
    if resize:  # decoded at the scale of the crop, as for evaluation
        image = open_photograph(
            path, subject=subject, bit_depth=bit_depth, crop=crops.CenterCrop(height, resize)
        )
    else:
        image = fit(open_photograph(path, subject=subject, bit_depth=bit_depth), height, width)
    return crops.as_array(image.convert("L" if channels == 1 else "RGB"))


def read_files(
    files: Sequence[str], image_shape: tuple[int, int, int], **options: Any
) -> list[np.ndarray | UserError]:
    """Read photographs in threads; the error takes the place of one that cannot be read.

    Args:
      files: to read.
      image_shape: (H, W, C) of the network.
      **options: of :func:`read`.
    """
    found: dict[str, np.ndarray | UserError] = {}

    def read_one(file: str) -> None:
        try:
            found[file] = read(file, image_shape, **options)
        except UserError as error:
            found[file] = error

    for _ in in_threads(read_one, files):
        pass
    return [found[file] for file in files]


def open_photograph(
    path: str | os.PathLike[str],
    *,
    subject: str,
    bit_depth: int = reading.MAX_DEPTH,
    crop: crops.Crop | None = None,
) -> Any:
    """Open a photograph: a PIL image of mode RGB, upright. See :func:`read`."""
    file = paths.parse(path)
    if not file.exists():
        raise UserError(f"{subject}: there is no file {str(path)!r}: give paths of image files")
    if file.is_dir():
        raise UserError(f"{subject}: {str(path)!r} is a directory: give the files in it")
    try:
        return reading.read_image(file, bit_depth, crop=crop)
    except UserError as error:
        raise UserError(f"{subject}: {error}") from error


def fit(image: Any, height: int, width: int, resize: int = 0) -> Any:
    """Crop a PIL image at its center, resized to (height, width)."""
    from PIL import Image, ImageOps

    if height == width:
        return crops.to_square(image, height, resize)
    return ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
