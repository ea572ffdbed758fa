"""Ctrl-C as a request: the run saves itself first.

Several processes agree on it at the end of the epoch, whichever of them it came to.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from at_jax import processes


class Interrupted(Exception):
    """A signal asked the run to stop, and it was saved first."""


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C (and a scheduler's SIGTERM) into a request that the loop sees after its step or epoch.

    Yields:
      A function that says whether one came. A second Ctrl-C stops at once.
    """
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set  # only the main thread may set handlers
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    what = b"epoch" if processes.several() else b"step"
    before = [signal.getsignal(number) for number in signals]

    def handler(number, frame):
        came.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Not print: the signal may come in the middle of one, and a buffered writer is not reentrant.
        os.write(1, b"\nStopping after this " + what + b"; once more to stop at once, unsaved.\n")

    for number in signals:
        signal.signal(number, handler)
    try:
        yield came.is_set
    finally:
        for number, old in zip(signals, before, strict=True):
            signal.signal(number, old)
