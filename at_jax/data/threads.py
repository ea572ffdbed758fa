"""Threads that decode images."""

import concurrent.futures
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["WORKERS", "in_threads"]

T = TypeVar("T")
WORKERS = min(32, os.cpu_count() or 1)


def in_threads(function: Callable[[T], object], arguments: Iterable[T]) -> Iterator[T]:
    """Call a function with each argument in threads, and yield the arguments in order as they are done.

    The first error ends the iteration, and with it the calls that have not begun.
    """
    arguments = list(arguments)
    for argument, _ in zip(arguments, _threads().map(function, arguments), strict=True):
        yield argument


@functools.cache
def _threads() -> concurrent.futures.ThreadPoolExecutor:
    # One pool per process: a lazy split takes a batch every few milliseconds.
    return concurrent.futures.ThreadPoolExecutor(WORKERS, thread_name_prefix="at_jax_decode")
