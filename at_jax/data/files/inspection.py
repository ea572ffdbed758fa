"""Inspection of every file of an image folder before training: format, damage, range of 16-bit values."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from at_jax.data.decoding import Examples
from at_jax.data.files import reading
from at_jax.data.files.formats import FORMATS, HEAD, claims_image, is_sixteen_bit_png, recognize
from at_jax.data.files.listing import File
from at_jax.data.files.verified import Verified
from at_jax.data.threads import in_threads
from at_jax.errors import UserError

__all__ = [
    "Inspection", "bit_depth", "check_shapes", "inspect", "inspect_examples", "is_long", "may_be_image",
    "remember_held", "report",
]  # fmt: skip

_CHUNK = 64  # files that a thread reads at a time
_SECONDS_BETWEEN_LINES = 10.0
# A pass that takes less is repeated: nothing is written for a small folder.
_SECONDS_TO_REMEMBER = 5.0


@dataclasses.dataclass(frozen=True)
class Inspection:
    """Findings in N files.

    Attributes:
      others: index of a file that is no image, and does not claim to be one, to its format.
      errors: index of an image that cannot be read to the error.
      entries: ``(N,)``, structured: key, largest value, width and height of each image.
    """

    others: dict[int, str]
    errors: dict[int, UserError]
    entries: np.ndarray


def inspect(
    files: Sequence[File], verified: Verified, *, decode: bool, needs_size: bool, name: str
) -> Inspection:
    """Inspect files in threads.

    Args:
      files: of a split.
      verified: files that were found good before.
      decode: decode every image, to find damage and its size; otherwise only the beginnings of files are
        read, and 16-bit images.
      needs_size: decode files whose size is not known, too.
      name: of the data set, for the line that reports progress.
    """

    def inspect_one(index: int, found: Inspection) -> None:
        file = files[index]
        try:
            head = reading.read_bytes(file.path, HEAD)
            if recognize(head) not in FORMATS and not claims_image(file.path):
                found.others[index] = recognize(head)
            elif decode or is_sixteen_bit_png(head):
                largest, size = reading.examine(reading.read_bytes(file.path))
                found.entries[index] = (found.entries["key"][index], largest, *size)
        except Exception as error:  # PIL raises many types
            found.errors[index] = reading.unreadable(file.path, error, reading.FIX_OF_FOLDER)

    return _inspect(
        files, verified, inspect_one, name, remember=decode, needs_size=decode and needs_size
    )


def inspect_examples(
    examples: Examples, files: Sequence[File], verified: Verified, name: str
) -> Inspection:
    """Decode examples in threads, to find damage.

    Args:
      examples: to decode; one that cannot be decoded raises a UserError.
      files: one for each example, with a version that changes when the example does.
      verified: those that were found good before.
      name: of the data set.
    """

    def inspect_one(index: int, found: Inspection) -> None:
        try:
            ((image, _),) = examples.read(np.array([index]), ())
            height, width = image.shape[:2]
            found.entries[index] = (found.entries["key"][index], 0, width, height)
        except UserError as error:
            found.errors[index] = error

    return _inspect(files, verified, inspect_one, name, remember=True)


def check_shapes(examples: Examples, entries: np.ndarray) -> None:
    """Raise if an image has another size than the first. Images that were not decoded are not checked."""
    height, width, channels = examples.image_shape
    other = (entries["width"] != width) | (entries["height"] != height)
    for index in np.flatnonzero(other & (entries["width"] > 0))[:1].tolist():
        size = (int(entries["height"][index]), int(entries["width"][index]))
        examples.check_shape(index, (*size, channels))


def _inspect(
    files: Sequence[File],
    verified: Verified,
    inspect_one: Callable[[int, Inspection], None],
    name: str,
    *,
    remember: bool,
    needs_size: bool = True,
) -> Inspection:
    """Call `inspect_one` with the index of every file that is not known to be good, in threads."""
    keys = verified.keys(files)
    known, entries = verified.find(keys)
    if needs_size:
        known &= entries["width"] > 0
    entries["key"] = keys
    unknown = np.flatnonzero(~known)
    found = Inspection({}, {}, entries)
    began = reported = time.monotonic()

    def inspect_some(start: int) -> None:
        for index in unknown[start : start + _CHUNK].tolist():
            inspect_one(index, found)  # each writes to its own index

    for start in in_threads(inspect_some, range(0, len(unknown), _CHUNK)):
        if time.monotonic() - reported > _SECONDS_BETWEEN_LINES:
            reported = time.monotonic()
            report(f"Checked {start + _CHUNK:,} of {len(unknown):,} images of {name}")
    if remember and is_long(began):
        bad = np.array([*found.others, *found.errors], np.int64)
        verified.remember(np.delete(entries, bad))
    return found


def remember_held(
    verified: Verified, entries: np.ndarray, image_shape: tuple[int, ...] | None
) -> None:
    """Remember files that were decoded without an error when the data set was held in memory.

    Args:
      verified: of their split.
      entries: of the files.
      image_shape: (H, W, C) of all files; None if they differ.
    """
    if image_shape is not None:
        entries["height"], entries["width"] = image_shape[:2]
    verified.remember(entries)


def may_be_image(file: File) -> bool:
    """Whether a file is read: by its content, or because its name says that it is an image."""
    if claims_image(file.path):
        return True
    try:
        return recognize(reading.read_bytes(file.path, HEAD)) in FORMATS
    except Exception:
        return True  # The error is shown when it is read.


def is_long(began: float) -> bool:
    """Whether what began at a time of ``time.monotonic`` takes long enough to remember its result."""
    return time.monotonic() - began > _SECONDS_TO_REMEMBER


def report(text: str) -> None:
    """Print a line to stderr; a closed stderr is ignored."""
    with contextlib.suppress(OSError, ValueError):  # closed
        # One write: print's separate one for the line break lets lines of threads mix.
        print(f"{text}\n", end="", file=sys.stderr, flush=True)


def bit_depth(largest: np.ndarray) -> int | None:
    """Bits that the values of 16-bit files have: 8, 10, 12, 14 or 16; None without such files.

    Args:
      largest: largest values of files, 0 for those that do not have 16 bits.

    >>> bit_depth(np.array([0, 4032, 77])), bit_depth(np.array([0, 0]))
    (12, None)
    """
    if not len(largest) or not largest.max():
        return None
    return next(bits for bits in (8, 10, 12, 14, 16) if largest.max() < 2**bits)
