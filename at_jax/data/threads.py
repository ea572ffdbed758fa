"""Threads that decode images."""

import concurrent.futures
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["WORKERS", "in_threads", "use_one"]

T = TypeVar("T")
WORKERS = min(32, os.cpu_count() or 1)
_uses_one = False


def use_one() -> None:
    """Make all later calls in the calling thread: this process is one of many that decode."""
    global _uses_one
    _uses_one = True


def in_threads(function: Callable[[T], object], arguments: Iterable[T]) -> Iterator[T]:
    """Call a function with each argument in threads, and yield the arguments in order as they are done.

    The first error ends the iteration, and with it the calls that have not begun.
    """
    arguments = list(arguments)
    if _uses_one:
        for argument in arguments:
            function(argument)
            yield argument
        return
    for argument, _ in zip(arguments, _threads().map(function, arguments), strict=True):
        yield argument


@functools.cache
def _threads() -> concurrent.futures.ThreadPoolExecutor:
    # One pool per process: a lazy split takes a batch every few milliseconds.
    return concurrent.futures.ThreadPoolExecutor(WORKERS, thread_name_prefix="at_jax_decode")
