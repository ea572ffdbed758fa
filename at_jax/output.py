"""Output of a command line that may disappear: a closed pipe, a full device, a terminal that is gone.

Training must not end because nobody reads its lines. Imports no heavy package.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterable

TYPE_CHECKING = False  # see signals
if TYPE_CHECKING:
    from typing import Any, TextIO

__all__ = ["secure", "write_error"]

_lost: list[OSError] = []  # the first error of stdout


def secure() -> None:
    """Make writes to stdout and stderr never raise. What cannot be written goes to the null device.

    A closed stdin, stdout or stderr is opened on the null device: otherwise the next file that the program
    opens, such as a checkpoint, would take its number and receive its lines. Call this once, first of all.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            _discard(descriptor)
    sys.stdout = _tolerant(sys.stdout, 1)
    sys.stderr = _tolerant(sys.stderr, 2)


def write_error() -> str:
    """Reason why the output of this command is incomplete; empty if it is not.

    A reader that closed its end, as ``head`` does, has all that it wanted.
    """
    sys.stdout.flush()
    unwanted = (errno.EPIPE, errno.EBADF)
    return next((str(error.strerror) for error in _lost if error.errno not in unwanted), "")


def _tolerant(stream: "TextIO | None", descriptor: int) -> "TextIO":
    if stream is None:  # it was closed when Python started
        stream = os.fdopen(descriptor, "w", errors="backslashreplace", closefd=False)
    elif hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")  # for a terminal without the character
    tolerant: Any = _Tolerant(stream, descriptor)
    return tolerant


def _discard(descriptor: int) -> None:
    """Connect a descriptor to the null device, for child processes too."""
    null = os.open(os.devnull, os.O_RDWR)
    if null == descriptor:
        os.set_inheritable(descriptor, True)
        return
    os.dup2(null, descriptor)
    os.close(null)


class _Tolerant:
    """A text stream that writes to the null device after an error."""

    def __init__(self, stream: "TextIO", descriptor: int):
        self._stream, self._descriptor = stream, descriptor

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
        except ValueError:  # closed by the program
            pass
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)
            # What is still in the buffer would fail again when Python ends, and change the exit code.
            with contextlib.suppress(OSError, ValueError):
                self._stream.flush()
        except ValueError:
            pass

    def _give_up(self, error: OSError) -> None:
        if self._descriptor == 1:
            _lost.append(error)
        with contextlib.suppress(OSError):
            _discard(self._descriptor)

    def __getattr__(self, name: str) -> "Any":
        return getattr(self._stream, name)
