"""Workdirs of active runs: their locks, and the error if their storage fails."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator

from at_jax import paths
from at_jax.distributed import processes
from at_jax.training.console import log
from at_jax.training.files import storage, workdir_lock

__all__ = ["working_in"]

# Workdirs that this process holds, outer ones first: a run trains its teacher in a subdirectory.
_open: list[pathlib.Path] = []


@contextlib.contextmanager
def working_in(*workdirs: pathlib.Path) -> Iterator[Callable[[pathlib.Path], None]]:
    """Hold the locks of workdirs while runs write to them (collective). Process 0 holds them for all.

    Args:
      *workdirs: absolute paths.

    Yields:
      A function that takes the lock of one more workdir.

    Raises:
      UserError: if a run is alive in one of them.
      storage.StorageError: if what is written to them fails, such as on a full disk.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(storage.reported(*workdirs))

        def lock(workdir: pathlib.Path) -> None:
            hold = workdir_lock.hold(workdir)
            processes.broadcast_from_primary(lambda: stack.enter_context(hold))

        for workdir in workdirs:
            if paths.scheme(workdir) == "gs" and not any(o in workdir.parents for o in _open):
                log(f"No file locks in cloud storage: start one command at a time in {workdir}")
            lock(workdir)
        _open.extend(workdirs)
        try:
            yield lock
        finally:
            for workdir in workdirs:  # another thread may have added its own
                _open.remove(workdir)
