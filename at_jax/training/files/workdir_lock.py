"""Lock on a workdir while a run is alive in it. Imports no jax.

The lock belongs to the process: the system releases it when the process ends, however it ends. A file that
is left behind locks nothing.
"""

import contextlib
import os
import pathlib
import shlex
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import filelock

from at_jax import paths
from at_jax.errors import UserError
from at_jax.training.files import json_files

__all__ = ["HOLDER", "LOCK", "InUse", "hold"]

LOCK = "run.lock"
HOLDER = "run.lock.json"  # who holds it: host, pid, command, since
_POLL_SECONDS = 5.0
_LONGEST_COMMAND = 200
# A holder writes its name right after it took the lock.
_TRIES, _SECONDS_BETWEEN_TRIES = 10, 0.1

# Real path of each workdir that this process holds, and the thread that took it.
_held: dict[str, int] = {}
# A forked child holds nothing. filelock closes its copy of the file.
os.register_at_fork(after_in_child=_held.clear)


class InUse(UserError):
    """A run is alive in the workdir, in another process or another thread."""


@contextlib.contextmanager
def hold(workdir: str | os.PathLike[str], *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a workdir, which is created. The same thread may nest calls.

    A workdir that holds nothing in the end is removed again. Cloud storage has no locks: there the function
    does nothing. Where a local file system has none, it warns.

    Args:
      workdir: of the run.
      wait: wait for another process.

    Raises:
      InUse: naming the process that holds the lock.
      UserError: for a path that cannot be used.
    """
    folder = paths.absolute(workdir)
    key = "" if paths.scheme(folder) else os.path.realpath(folder)
    if not key or _held.get(key) == threading.get_ident():
        yield
        return
    made = _make(folder)
    try:
        lock = _acquire(folder, wait)
    except BaseException:
        _remove(made)
        raise
    _held[key] = threading.get_ident()
    try:
        yield
    finally:
        del _held[key]
        _release(folder, lock)
        _remove(made)


def _make(folder: pathlib.Path) -> list[pathlib.Path]:
    """Create a directory; return those that did not exist, the deepest first."""
    missing = []
    try:
        for each in (folder, *folder.parents):
            if each.exists():
                break
            missing.append(each)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        pass  # the first file that the run writes explains it
    return missing


def _remove(made: list[pathlib.Path]) -> None:
    for each in made:
        with contextlib.suppress(OSError):  # not empty, or never made
            each.rmdir()


def _acquire(folder: pathlib.Path, wait: bool) -> filelock.BaseFileLock | None:
    """Take the lock; None where the file system has no locks, or the folder cannot be written."""
    # Another kind of lock, made by the existence of a file, would outlive a killed process.
    lock = filelock.FileLock(folder / LOCK, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(blocking=wait, poll_interval=_POLL_SECONDS)
    except filelock.Timeout:
        raise InUse(_in_use(folder)) from None
    except (OSError, NotImplementedError) as error:
        if os.path.isdir(folder):
            reason = getattr(error, "strerror", None) or type(error).__name__
            warnings.warn(
                f"workdir {folder} cannot be locked ({reason}): start one command at a time in it",
                stacklevel=5,
            )
        return None
    with contextlib.suppress(OSError):  # the lock itself is held
        paths.write_bytes(folder / HOLDER, json_files.dumps(_me()).encode())
    return lock


def _release(folder: pathlib.Path, lock: filelock.BaseFileLock | None) -> None:
    if lock is None:
        return
    with contextlib.suppress(OSError):
        (folder / HOLDER).unlink(missing_ok=True)
        # A run that was refused leaves nothing. Deleted while the lock is held: whoever has the file open
        # finds that it is gone.
        if os.listdir(folder) == [LOCK]:
            (folder / LOCK).unlink()
    lock.release()


def _me() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": shlex.join(sys.argv)[:_LONGEST_COMMAND],
        "since": time.strftime("%Y-%m-%d %H:%M:%S%z"),
    }


def _in_use(folder: pathlib.Path) -> str:
    holder = _holder(folder)
    who = "an unidentified process"
    if holder is not None:
        who = (
            f"process {holder['pid']} on {holder['host']} since {holder['since']} "
            f"({' '.join(str(holder['command']).split())})"
        )
    return (
        f"workdir {folder} is in use by {who}: wait until that run ends or stop it, or choose another "
        "--workdir"
    )


def _holder(folder: pathlib.Path) -> dict[str, Any] | None:
    """Who holds the lock; None if unknown."""
    for _ in range(_TRIES):
        try:
            holder = json_files.read(folder / HOLDER)
        except (FileNotFoundError, json_files.Damaged):
            holder = {}
        if {"host", "pid", "command", "since"} <= holder.keys() and not _is_gone(holder):
            return holder
        time.sleep(_SECONDS_BETWEEN_TRIES)
    return None


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether the named process of this machine has ended: a killed holder leaves its name."""
    if holder["host"] != socket.gethostname() or not isinstance(holder["pid"], int):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # a process of another user, or no number of one
        pass
    return False
