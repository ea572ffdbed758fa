"""Folder of checkpoints: Orbax's manager for it, what a kill leaves in it, checksums."""

import contextlib
import logging
import pathlib
import re
import sys
import threading
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from at_jax import paths
from at_jax.distributed import processes
from at_jax.errors import UserError
from at_jax.training.files import checkpoint_meta
from at_jax.training.files.json_files import Damaged

__all__ = [
    "DELETED", "checksums", "clean", "make", "open_manager", "quiet_orbax", "save", "writing",
]  # fmt: skip

# A checkpoint is renamed before it is deleted: a kill leaves no half of one under its step.
DELETED = "deleted"
_KEPT = 2  # latest checkpoints, so that there is one to fall back to
# What a kill leaves of a save.
_UNFINISHED = re.compile(r"\d+\.orbax-checkpoint-tmp.*")


def checksums(tree: Any) -> dict[str, int]:
    """CRC-32 of every array of a nested dict, by its path."""
    flat = traverse_util.flatten_dict(tree, sep="/")
    return {path: zlib.crc32(np.ascontiguousarray(leaf).tobytes()) for path, leaf in flat.items()}


def clean(directory: pathlib.Path) -> None:
    """Delete what killed processes left of checkpoints that they were saving or deleting.

    Call it while no other process saves checkpoints there.
    """
    names = paths.names(directory)
    newest = max((int(name) for name in names if name.isdecimal()), default=-1)
    for name in names:
        path = directory / name
        # Set aside by a resume from an earlier step, which has come this far again.
        ahead = re.fullmatch(r"ahead-(\d+)", name)
        is_passed = ahead is not None and int(ahead[1]) <= newest
        # Without arrays and without JSON: nothing could be restored from it.
        is_remnant = re.fullmatch(r"(damaged-)?\d+", name) and not any(
            (path / part).exists() for part in ("params", "meta/metadata")
        )
        is_unfinished = name == DELETED or _UNFINISHED.fullmatch(name)
        if path.is_dir() and (is_remnant or is_passed or is_unfinished):
            paths.remove(path)


def open_manager(
    directory: pathlib.Path, errors: dict[int, float | Damaged | None]
) -> ocp.CheckpointManager:
    """Open Orbax's manager, which keeps the latest checkpoints and the best one.

    Args:
      directory: of the checkpoints; it exists.
      errors: of each step, as :func:`at_jax.training.files.checkpoint_meta.test_errors` returns them; read
        at every save.
    """
    return _Manager(
        directory,
        options=ocp.CheckpointManagerOptions(
            create=False,
            # Other processes do not wait for a save.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                active_processes={0} if processes.is_multiprocess() else None
            ),
            preservation_policy=_Preserved(errors),
            todelete_subdir=None if paths.scheme(directory) else DELETED,
        ),
    )


class _Manager(ocp.CheckpointManager):
    """A manager that leaves the scores of older versions alone: they have no checksum."""

    def metrics(self, step: int) -> None:
        """Return no score. Orbax would read that of every checkpoint, and fail if one is damaged."""
        del step


class _Preserved:
    """Orbax's preservation policy: the latest checkpoints, the best one, and those that cannot be read."""

    def __init__(self, errors: dict[int, float | Damaged | None]):
        self._errors = errors

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Whether to keep each checkpoint; they are sorted by step."""
        del context
        steps = [info.step for info in checkpoints]
        errors = {step: self._errors.get(step) for step in steps}
        kept = {*steps[-_KEPT:], *checkpoint_meta.by_error(errors)[:1]}
        return [step in kept or isinstance(errors[step], Damaged) for step in steps]


# Threads with open checkpoints that are written, one entry for each run; and the lock of a save.
_writers: list[int] = []
_saving = threading.Lock()


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Register a run that saves checkpoints in this thread."""
    thread = threading.get_ident()
    _writers.append(thread)
    try:
        yield
    finally:
        _writers.remove(thread)


def save(manager: Any, step: int, **options: Any) -> None:
    """Save in the background; with runs in several threads, wait until the checkpoint is on disk.

    Orbax numbers the saves of a process: one that begins before that of another thread has ended fails.
    """
    with _saving:
        manager.save(step, **options)
        if len(set(_writers)) > 1:
            manager.wait_until_finished()


def make(directory: pathlib.Path) -> None:
    """Create the directory of the checkpoints.

    Raises:
      UserError: if a file has its name.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{directory} must be a directory, got a file: move it away") from error


def _is_no_leftover(record: logging.LogRecord) -> bool:
    """False for an error of a restore that ended with an earlier one; asyncio reports it much later."""
    return "tensorstore_spec" not in record.getMessage()


@contextlib.contextmanager
def quiet_orbax() -> Iterator[None]:
    """Drop what Orbax and tensorstore print from their threads: the errors are raised here, too."""
    logging.getLogger("asyncio").addFilter(_is_no_leftover)  # once: it is the same function

    def is_shown(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    def hook(unraisable: Any) -> None:
        # Tensorstore reports here what it still read after the first error of a restore.
        if str(unraisable.exc_value) != "Event loop is closed":
            original(unraisable)

    logger, original = logging.getLogger("absl"), sys.unraisablehook
    logger.addFilter(is_shown)
    sys.unraisablehook = hook
    try:
        yield
    finally:
        logger.removeFilter(is_shown)
        if sys.unraisablehook is hook:
            sys.unraisablehook = original
