"""Timing of JAX and PyTorch programs on an accelerator."""

import time
from collections.abc import Callable
from typing import Any

import jax

__all__ = ["best", "best_torch", "has_torch", "shortest"]

# Rounds of a measurement, and the time in seconds after which no round begins (two are always measured).
_ROUNDS, _ENOUGH = 5, 2.0


def has_torch() -> bool:
    """Whether PyTorch is installed and sees the device that JAX uses."""
    try:
        import torch
    except ModuleNotFoundError:
        return False
    return torch.cuda.is_available() or jax.default_backend() == "cpu"


def best(call: Callable[[], Any], repeats: int) -> float:
    """Shortest time of a call in seconds, over rounds of several calls in flight."""
    return shortest(lambda: _round(call, jax.block_until_ready, repeats)) / repeats


def best_torch(call: Callable[[], Any], repeats: int) -> float:
    """The same for PyTorch."""
    import torch

    def wait(_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return shortest(lambda: _round(call, wait, repeats)) / repeats


def shortest(timed_round: Callable[[], float]) -> float:
    """Shortest of several rounds, in seconds, after one that is not counted.

    Args:
      timed_round: runs a round and returns its seconds. The first one may allocate memory, or search for
        the fastest algorithms.
    """
    timed_round()
    times: list[float] = []
    while len(times) < 2 or (len(times) < _ROUNDS and sum(times) < _ENOUGH):
        times.append(timed_round())
    return min(times)


def _round(call: Callable[[], Any], wait: Callable[[Any], Any], repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        result = call()
    wait(result)
    return time.perf_counter() - began
