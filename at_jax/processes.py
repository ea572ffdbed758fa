"""Processes: the only file that knows that there may be several of them, and how they keep together.

All run the same program on their own devices. Process 0 alone reads and writes the run's folder and
speaks to the person; what it reads, and what is wrong with it, it tells the others. A function marked
*together* waits until every process has called it, so that all must call the same ones in the same order.
"""

import pickle
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")


def index_and_count() -> tuple[int, int]:
    """Which process this is, and how many there are."""
    return jax.process_index(), jax.process_count()


def several() -> bool:
    """Whether there are others."""
    return jax.process_count() > 1


def is_primary() -> bool:
    """Whether this is process 0, which alone writes and speaks."""
    return jax.process_index() == 0


def any_of(flag: bool) -> bool:
    """Whether the flag is up on any process. Together."""
    if not several():
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def from_primary(function: Callable[[], T]) -> T:
    """Call a function on process 0; every process returns what it returned, or raises what it raised.

    Together.

    Args:
      function: of no arguments; what it returns is sent as a pickle, NumPy arrays and all.

    Returns:
      The value of process 0.

    >>> from_primary(lambda: 3)
    3
    """
    if not several():
        return function()
    value, error = _call(function) if is_primary() else (None, None)
    if error is not None:
        _send(error, source=0)
        raise error
    value = _send(value, source=0)
    if isinstance(value, _Failure):
        raise value.error()
    return value


def on_all(function: Callable[[], T]) -> T:
    """Call a function on every process; where it raises on one, all raise. Together.

    Args:
      function: of no arguments.

    Returns:
      What it returned on this process.

    >>> on_all(lambda: 3)
    3
    """
    if not several():
        return function()
    value, error = _call(function)
    failed = multihost_utils.process_allgather(np.asarray(error is not None))
    if not failed.any():
        return value
    source = int(np.argmax(failed))
    told = _send(error, source=source)
    raise error if error is not None else told.error(f"process {source}: ")


def check_same(values: Mapping[str, Any]) -> None:
    """Check that every process has the same values, by name: else they would not run one program.

    Together.

    Raises:
      ValueError: naming what differs.
    """
    if not several():
        return
    theirs, index = from_primary(lambda: dict(values)), jax.process_index()

    def compare():
        differing = [
            f"{name}: {theirs.get(name)!r} in process 0, {values.get(name)!r} in process {index}"
            for name in sorted({*theirs, *values})
            if theirs.get(name) != values.get(name)
        ]
        if differing:
            raise ValueError(
                f"all processes of a run must have the same, got {'; '.join(differing)}: start them by one "
                "command on the same data, or with --processes=1 to train each alone"
            )

    on_all(compare)


class _Failure:
    """An error on its way to other processes."""

    def __init__(self, error: Exception):
        self._expected, self._text = isinstance(error, ValueError), str(error)
        if not self._expected:
            self._text = f"{type(error).__name__}: {error}"

    def error(self, prefix: str = "") -> Exception:
        return (ValueError if self._expected else RuntimeError)(prefix + self._text)


def _call(function: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return function(), None
    except Exception as error:  # whatever it is, the others wait to hear of it
        return None, error


def _send(value: Any, source: int) -> Any:
    """Send a value of one process to all: they return it; the others' values count for nothing."""
    is_source = jax.process_index() == source
    value = _Failure(value) if isinstance(value, Exception) else value
    # A pickle may run code when it is read: these come from processes of the same run alone.
    message = pickle.dumps(value) if is_source else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(message)), is_source=is_source))
    # Few different lengths: each compiles a program.
    padded = np.zeros(max(1024, 1 << (size - 1).bit_length()), np.uint8)
    padded[: len(message)] = np.frombuffer(message, np.uint8)
    received = multihost_utils.broadcast_one_to_all(padded, is_source=is_source)
    return value if is_source else pickle.loads(received[:size].tobytes())
