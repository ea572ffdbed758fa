"""Signals as a request to save and stop: Ctrl-C, SIGTERM of a job scheduler, SIGHUP of a closed terminal.

Several processes agree at the end of each epoch whether one of them received a signal.
"""

import contextlib
import signal
from collections.abc import Callable

from at_jax import signals
from at_jax.distributed import processes

__all__ = ["Interrupted", "interruptible"]


class Interrupted(Exception):
    """A signal stopped the run after its state was saved.

    Attributes:
      signal: that was received, by this process or by another one of the run.
    """

    def __init__(self, message: str, number: int = signal.SIGINT):
        super().__init__(message)
        self.signal = signal.Signals(number)

    @property
    def exit_code(self) -> int:
        """Exit code of a command line: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + self.signal


def interruptible() -> contextlib.AbstractContextManager[Callable[[], int]]:
    """Turn the first signal into a number that the training loop checks; see :func:`signals.deferred`.

    Returns:
      A context manager that yields a function that returns the number of the signal, 0 if none has arrived.
    """
    when = "this epoch" if processes.is_multiprocess() else "the steps that are queued"
    announcement = (
        f"Stopping after {when} ({{name}}); a second signal stops at once, without saving"
    )
    return signals.deferred(announcement)
