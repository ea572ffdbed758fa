"""Coordination of several processes: the only file that communicates between them.

All processes run the same program on their own devices. Process 0 alone reads and writes the run's
directory and prints; its values and errors are broadcast to the others. A function marked *collective*
returns only after every process has called it, so all processes must call the collective functions in the
same order.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from at_jax.distributed import wire
from at_jax.errors import UserError, listed

__all__ = [
    "broadcast_from_primary",
    "check_same",
    "failure_line",
    "index_and_count",
    "is_multiprocess",
    "is_primary",
    "largest",
    "run_on_all",
]

T = TypeVar("T")

# Bytes sent at once: a state may be larger than what a collective, or 32 bits, can hold.
_CHUNK = 1 << 26


def index_and_count() -> tuple[int, int]:
    """Return the index of this process and the number of processes."""
    return jax.process_index(), jax.process_count()


def is_multiprocess() -> bool:
    """Return True if the run has more than one process."""
    return jax.process_count() > 1


def is_primary() -> bool:
    """Return True in process 0, the only one that writes files and prints."""
    return jax.process_index() == 0


def largest(number: int) -> int:
    """Largest of the numbers of all processes, each below 2^31 (collective)."""
    if not is_multiprocess():
        return number
    return int(np.max(multihost_utils.process_allgather(np.asarray(number, np.int32))))


def broadcast_from_primary(function: Callable[[], T]) -> T:
    """Call a function on process 0 and return its value, or raise its error, on all (collective).

    Args:
      function: function without arguments; its value is sent by :mod:`at_jax.distributed.wire`: plain
        values, arrays, and dicts, lists and tuples of them.

    Returns:
      The value of process 0.

    Raises:
      UserError: if the function raised a UserError on process 0.
      RuntimeError: on the other processes, if it raised any other exception on process 0.
      MessageError: if what arrived cannot be read, for example because process 0 runs another version.

    >>> broadcast_from_primary(lambda: 3)
    3
    """
    if not is_multiprocess():
        return function()
    if not is_primary():
        kind, received = _broadcast(None, source=0)
        if kind != _VALUE:
            raise _error(kind, received)
        return received
    value, error = _call(function)
    message, error = _message(value, error)
    _broadcast(message, source=0)
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # set where error is None


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
    message = _message(None, error)[0] if source == jax.process_index() else None
    kind, text = _broadcast(message, source=source)
    raise error if error is not None else _error(kind, f"process {source}: {text}")


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


def failure_line(error: BaseException) -> str | None:
    """Describe in one line an error that another process caused; None for any other error.

    Args:
      error: that ended this process.
    """
    return str(error) if isinstance(error, wire.MessageError) else None


# A message is one of these and its content: a value, or the text of an error.
_VALUE, _USER_ERROR, _OTHER_ERROR = "value", "user error", "error"


def _message(value: Any, error: Exception | None) -> tuple[np.ndarray, Exception | None]:
    """Message that holds the value or the error of a function, and the error to raise here."""
    if error is None:
        try:
            return wire.encode((_VALUE, value)), None
        except TypeError as unsendable:  # the others wait for a message
            error = unsendable
    is_user_error = isinstance(error, UserError)
    text = str(error) if is_user_error else f"{type(error).__name__}: {error}"
    return wire.encode((_USER_ERROR if is_user_error else _OTHER_ERROR, text)), error


def _error(kind: str, text: Any) -> Exception:
    return UserError(text) if kind == _USER_ERROR else RuntimeError(text)


def _call(function: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return function(), None
    except Exception as error:  # every exception: the other processes wait for the result
        return None, error


def _broadcast(message: np.ndarray | None, source: int) -> tuple[str, Any]:
    """Send the message of one process to all, which return its kind and content."""
    is_source = message is not None
    head = _send(
        np.zeros(wire.HEAD, np.uint8) if message is None else wire.head(message), is_source
    )
    try:
        length, checksum = wire.body(head)
        content = np.empty(length, np.uint8) if message is None else message
        for start in range(0, length, _CHUNK):
            part = content[start : start + _CHUNK]
            # Powers of two, because each length compiles a program.
            padded = np.zeros(max(1024, 1 << (len(part) - 1).bit_length()), np.uint8)
            if is_source:
                padded[: len(part)] = part
            received = _send(padded, is_source)
            if not is_source:
                part[:] = received[: len(part)]
        kind, value = wire.decode(content, checksum)
    except (wire.MessageError, MemoryError, ValueError, TypeError) as error:
        raise wire.MessageError(
            f"process {source} sent what process {jax.process_index()} cannot read ({error}): run the same "
            "version of at_jax in every process, and let no other program use the coordinator's port"
        ) from error
    return kind, value


def _send(array: np.ndarray, is_source: bool) -> np.ndarray:
    return np.asarray(multihost_utils.broadcast_one_to_all(array, is_source=is_source))
