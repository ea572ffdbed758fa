"""Console output."""

import contextlib
import sys

from at_jax.distributed import processes

__all__ = ["counted", "duration", "log"]


def log(text: str, *, is_note: bool = False) -> None:
    """Print a line in process 0, above the progress bar if one is shown, and flush it.

    Args:
      text: without the end of the line.
      is_note: print to stderr, so that a program that reads results from stdout does not see it.
    """
    if not processes.is_primary():
        return
    from tqdm import tqdm

    file = sys.stderr if is_note else sys.stdout
    # Training continues without a reader: stdout may be closed, or its device full or gone.
    if file is not None:
        with contextlib.suppress(OSError, ValueError):
            tqdm.write(text, file=file)
            file.flush()


def duration(seconds: float) -> str:
    """Format seconds as ``m:ss`` or ``h:mm:ss``.

    >>> duration(75), duration(3675)
    ('1:15', '1:01:15')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def counted(count: int, noun: str) -> str:
    """Format a number with its noun, in the plural unless it is 1.

    >>> counted(1, "epoch"), counted(1_500, "image")
    ('1 epoch', '1,500 images')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
