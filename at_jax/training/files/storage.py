"""Storage that fails while a run writes to it, such as a full disk, reported as one line."""

import contextlib
import errno
import os
import pathlib
import re
from collections.abc import Iterator

from at_jax import paths
from at_jax.training.files import checkpoint_meta

__all__ = ["StorageError", "check_space", "conversion", "reported"]

_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV,
}  # fmt: skip
# Tensorstore and fsspec raise errors of other types with the system's text.
_TEXTS = {os.strerror(number).lower(): number for number in _ERRORS}
_TEXT = re.compile("|".join(map(re.escape, _TEXTS)))


class StorageError(Exception):
    """A workdir cannot be written any more. What was saved stays; the message names it."""


@contextlib.contextmanager
def reported(*workdirs: pathlib.Path, kept: str = "") -> Iterator[None]:
    """Turn an error of the storage under one of the workdirs into a StorageError.

    Args:
      *workdirs: of runs, or folders of other programs.
      kept: see :func:`check_space`.

    Raises:
      StorageError: naming the workdir, the reason and the last good checkpoint.
    """
    try:
        yield
    except OSError as error:
        within = [each for each in workdirs if _is_within(each, error)]
        # Tensorstore names no file, and cloud storage not ours. Another file is not ours, such as that of a
        # callback.
        if within or not error.filename or any(map(paths.scheme, workdirs)):
            check_space([*within, *workdirs][0], error, kept)
        raise


def _is_within(workdir: pathlib.Path, error: OSError) -> bool:
    folder, file = os.path.realpath(workdir), os.path.realpath(str(error.filename or ""))
    return file == folder or file.startswith(f"{folder}{os.sep}")


def check_space(workdir: pathlib.Path, error: OSError, kept: str = "") -> None:
    """Raise StorageError if the storage failed, or what is in the workdir cannot be written any more.

    Args:
      workdir: that was written.
      error: of the system.
      kept: part of the message about what was saved; empty for the newest checkpoint of the workdir.
    """
    is_gone = error.errno in (errno.EACCES, errno.ENOENT) and _is_within(workdir, error)
    if error.errno not in _ERRORS and not is_gone:
        return
    subject = f"workdir {workdir}" if not kept else f"{workdir}"
    raise StorageError(
        f"{subject} cannot be written ({error.strerror}); {kept or _newest(workdir)}: free some space "
        "there, and run the same command to resume"
    ) from error


def _newest(workdir: pathlib.Path) -> str:
    saved = None
    with contextlib.suppress(OSError):
        saved = checkpoint_meta.newest(workdir)
    if saved is None:
        return "no checkpoint has been saved yet"
    path = workdir / checkpoint_meta.FOLDER / str(saved[0])
    return f"the last good checkpoint is {path}, step {saved[0]}"


@contextlib.contextmanager
def conversion(directory: pathlib.Path) -> Iterator[None]:
    """Turn what a library raises for an error of the storage into the OSError behind it.

    Raises:
      OSError: with the number and the text of the system.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # the libraries have errors of their own
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError):
                raise cause from None
            if found := _TEXT.search(str(cause).lower()):
                number = _TEXTS[found[0]]
                raise OSError(number, os.strerror(number), str(directory)) from error
            cause = cause.__cause__ or cause.__context__
        raise
