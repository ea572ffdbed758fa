"""Ctrl-C and SIGTERM as a request to save and stop.

Several processes agree at the end of each epoch whether one of them received the signal.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from at_jax.distributed import processes

__all__ = ["Interrupted", "interruptible"]


class Interrupted(Exception):
    """A signal stopped the run after its state was saved."""


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C, and the SIGTERM of a job scheduler, into a flag that the training loop checks.

    A second Ctrl-C raises KeyboardInterrupt. Outside the main thread no handler is installed, because
    Python does not allow it.

    Yields:
      A function that returns True once a signal has arrived.
    """
    received = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield received.is_set
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    unit = b"epoch" if processes.is_multiprocess() else b"step"
    previous = [signal.getsignal(number) for number in signals]

    def handler(number: int, frame: FrameType | None) -> None:
        received.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Not print: the signal may interrupt a print, and buffered writers are not reentrant.
        os.write(
            1, b"\nStopping after this " + unit + b"; press Ctrl-C again to quit without saving\n"
        )

    for number in signals:
        signal.signal(number, handler)
    try:
        yield received.is_set
    finally:
        for number, old in zip(signals, previous, strict=True):
            signal.signal(number, old)
