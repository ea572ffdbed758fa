"""Coordination of several processes: the only file that communicates between them.

All processes run the same program on their own devices. Process 0 alone reads and writes the run's
directory and prints; its values and errors are broadcast to the others. A function marked *collective*
returns only after every process has called it, so all processes must call the collective functions in the
same order.
"""

import pickle
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from at_jax.errors import UserError, listed

__all__ = [
    "any_process",
    "broadcast_from_primary",
    "check_same",
    "index_and_count",
    "is_multiprocess",
    "is_primary",
    "run_on_all",
]

T = TypeVar("T")


def index_and_count() -> tuple[int, int]:
    """Return the index of this process and the number of processes."""
    return jax.process_index(), jax.process_count()


def is_multiprocess() -> bool:
    """Return True if the run has more than one process."""
    return jax.process_count() > 1


def is_primary() -> bool:
    """Return True in process 0, the only one that writes files and prints."""
    return jax.process_index() == 0


def any_process(flag: bool) -> bool:
    """Logical OR of a flag over processes (collective)."""
    if not is_multiprocess():
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def broadcast_from_primary(function: Callable[[], T]) -> T:
    """Call a function on process 0 and return its value, or raise its error, on all (collective).

    Args:
      function: function without arguments; its value is sent as a pickle, including NumPy arrays.

    Returns:
      The value of process 0.

    Raises:
      UserError: if the function raised a UserError on process 0.
      RuntimeError: on the other processes, if it raised any other exception on process 0.

    >>> broadcast_from_primary(lambda: 3)
    3
    """
    if not is_multiprocess():
        return function()
    value, error = _call(function) if is_primary() else (None, None)
    if error is not None:
        _broadcast(error, source=0)
        raise error
    value = _broadcast(value, source=0)
    if isinstance(value, _Failure):
        raise value.error()
    return value


def run_on_all(function: Callable[[], T]) -> T:
    """Call a function on every process; if it raises on one, it raises on all (collective).

    Args:
      function: function without arguments.

    Returns:
      The value of this process.

    Raises:
      UserError: if the function raised a UserError on any process.
      RuntimeError: on the other processes, if it raised any other exception.

    >>> run_on_all(lambda: 3)
    3
    """
    if not is_multiprocess():
        return function()
    value, error = _call(function)
    failed = multihost_utils.process_allgather(np.asarray(error is not None))
    if not failed.any():
        return value  # type: ignore[return-value]  # set where error is None
    source = int(np.argmax(failed))
    failure = _broadcast(error, source=source)
    raise error if error is not None else failure.error(f"process {source}: ")


def check_same(values: Mapping[str, Any]) -> None:
    """Check that all processes have equal values, as one program requires (collective).

    Args:
      values: name to value.

    Raises:
      UserError: naming the values that differ.
    """
    if not is_multiprocess():
        return
    expected, index = broadcast_from_primary(lambda: dict(values)), jax.process_index()

    def compare() -> None:
        differing = [
            f"{name} ({expected.get(name)!r} in process 0, {values.get(name)!r} in process {index})"
            for name in sorted({*expected, *values})
            if expected.get(name) != values.get(name)
        ]
        if differing:
            raise UserError(
                f"all processes of a run must have equal settings, got {listed(differing)}: start them "
                "with one command on the same data, or train each separately with --processes=1"
            )

    run_on_all(compare)


class _Failure:
    """Picklable description of an error, to raise it on other processes."""

    def __init__(self, error: Exception):
        self._is_user_error = isinstance(error, UserError)
        self._text = str(error) if self._is_user_error else f"{type(error).__name__}: {error}"

    def error(self, prefix: str = "") -> Exception:
        return (UserError if self._is_user_error else RuntimeError)(prefix + self._text)


def _call(function: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return function(), None
    except Exception as error:  # every exception: the other processes wait for the result
        return None, error


def _broadcast(value: Any, source: int) -> Any:
    """Send the value of one process to all, which return it; the values of the others are ignored."""
    is_source = jax.process_index() == source
    value = _Failure(value) if isinstance(value, Exception) else value
    # Loading a pickle may run code; these come only from processes of the same run.
    message = pickle.dumps(value) if is_source else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(message)), is_source=is_source))
    # Powers of two, because each length compiles a program.
    padded = np.zeros(max(1024, 1 << (size - 1).bit_length()), np.uint8)
    padded[: len(message)] = np.frombuffer(message, np.uint8)
    received = multihost_utils.broadcast_one_to_all(padded, is_source=is_source)
    return value if is_source else pickle.loads(received[:size].tobytes())
