"""Signals that stop a command or a run: SIGINT, SIGTERM and SIGHUP. Imports no heavy package.

Python runs a signal handler in the main thread, and only between two bytecodes: not while XLA compiles. A
command line therefore reads its signals in a thread of its own, which can end the process at any time.
A signal that the parent process ignored (``nohup``, ``&`` in a script) stays ignored.

Until :func:`watch` runs, Ctrl-C prints a traceback. This module therefore imports little, and what it needs
only for types not at all.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

__all__ = ["command", "deferred", "hold", "rearm", "watch"]

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Deferral:
    """The first signal that arrived while the program was not to stop at once."""

    def __init__(self, announcement: str):
        self.announcement = announcement
        self.number = 0

    def accepts(self, number: int) -> bool:
        """Record a signal and announce it; False if there was one before."""
        if self.number:
            return False
        self.number = number
        _write(1, self.announcement.format(name=signal.Signals(number).name))
        return True


_fork = threading.local()  # mask: the signals that the forking thread had blocked
_deferral: _Deferral | None = None
_is_watching = False
_resumes = False


def watch(*, resumes: bool = False) -> None:
    """Stop this command line on a signal, with one line and exit code 128 + its number.

    Call it once, in the main thread, before anything slow is imported.

    Args:
      resumes: whether the same command continues where this one stopped; the line says so.
    """
    global _is_watching, _resumes
    _resumes = resumes
    if not _is_watching:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=_read, args=(reader,), name="signals", daemon=True).start()
        os.register_at_fork(before=_before_fork, after_in_parent=_unmask, after_in_child=_forget)
        _is_watching = True
    rearm()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _NUMBERS)  # see hold


def rearm() -> None:
    """Take the signals back from a library that has handlers of its own, such as jax.distributed."""
    if _is_watching and threading.current_thread() is threading.main_thread():
        for number in _handled():
            signal.signal(number, _leave_to_the_thread)


@contextlib.contextmanager
def hold() -> Iterator[None]:
    """Hold signals back while this process replaces itself: they arrive when the new one watches."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)
    try:
        yield
    finally:  # it could not replace itself
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def command(original: Sequence[str] | None = None) -> str:
    """This command line, quoted for a shell.

    Args:
      original: the arguments of the process; None for ``sys.orig_argv``.

    >>> command(["/venv/bin/python", "/venv/bin/at-jax", "train", "--workdir=my run"])
    "at-jax train '--workdir=my run'"
    >>> command(["python", "train.py", "--config=digits"])
    'python train.py --config=digits'
    """
    import shlex

    words = list(sys.orig_argv if original is None else original)
    if len(words) > 1 and os.path.basename(words[1]) == "at-jax":
        words[:2] = ["at-jax"]
    return " ".join(shlex.join(words).splitlines())


@contextlib.contextmanager
def deferred(announcement: str) -> Iterator[Callable[[], int]]:
    """Let the program stop where it chooses: the first signal is recorded, the second stops at once.

    Outside of a command line, the second has the effect that it had before, such as KeyboardInterrupt. In a
    thread other than the main one, signals are left alone.

    Args:
      announcement: line printed at the first signal; ``{name}`` is replaced by its name.

    Yields:
      A function that returns the number of the signal, 0 if none has arrived.
    """
    global _deferral
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    outer, deferral = _deferral, _Deferral(announcement)
    previous = {} if _is_watching else {number: _previous(number) for number in _handled()}

    def handler(number: int, frame: "FrameType | None") -> None:
        deferral.accepts(number)
        _restore(previous)

    _deferral = deferral
    for number in previous:
        signal.signal(number, handler)
    rearm()
    try:
        yield lambda: deferral.number
    finally:
        _deferral = outer
        _restore(previous)
    # Nothing was raised, so that the signal came too late for the program to act on it.
    if deferral.number and _is_watching:
        _stop(deferral.number)
    elif deferral.number:
        signal.raise_signal(deferral.number)


def _handled() -> list[signal.Signals]:
    return [number for number in _NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]


def _previous(number: signal.Signals) -> "Any":
    return signal.getsignal(number) or signal.SIG_DFL  # None: one that is not Python's


def _restore(handlers: "dict[signal.Signals, Any]") -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _leave_to_the_thread(number: int, frame: "FrameType | None") -> None:
    """Do nothing: a signal needs a Python handler to be written to the pipe that the thread reads."""


def _read(pipe: int) -> None:
    while numbers := os.read(pipe, 1):
        number, deferral = numbers[0], _deferral
        if number in _NUMBERS and not (deferral and deferral.accepts(number)):
            _stop(number)


def _stop(number: int) -> None:
    hint = f": run the same command to resume: {command()}" if _resumes else ""
    _write(2, f"Stopped at once by {signal.Signals(number).name}{hint}")
    os._exit(128 + number)


def _before_fork() -> None:
    # The child shares the pipe: a signal that it received at once would stop its parent.
    _fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)


def _unmask() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _fork.mask)


def _forget() -> None:
    """Give a forked child, which has no such thread, the default handlers."""
    global _is_watching
    if _is_watching:
        _is_watching = False
        signal.set_wakeup_fd(-1)
        for number in _handled():
            is_interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)
    _unmask()


def _write(descriptor: int, line: str) -> None:
    # Not print: the main thread may be in the middle of one, and its buffer is locked.
    with contextlib.suppress(OSError):
        start = "\n" if os.isatty(descriptor) else ""  # after the ^C, or a progress bar
        os.write(descriptor, f"{start}{line}\n".encode(errors="backslashreplace"))
