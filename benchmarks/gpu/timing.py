"""Timing of JAX and PyTorch programs on an accelerator."""

import time
from collections.abc import Callable
from typing import Any

import jax

__all__ = ["best", "best_torch", "has_torch"]


def has_torch() -> bool:
    """Whether PyTorch is installed and sees the device that JAX uses."""
    try:
        import torch
    except ModuleNotFoundError:
        return False
    return torch.cuda.is_available() or jax.default_backend() == "cpu"


def best(call: Callable[[], Any], repeats: int, rounds: int = 5) -> float:
    """Shortest time of a call in seconds, over rounds of several calls in flight."""
    jax.block_until_ready(call())
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(repeats):
            result = call()
        jax.block_until_ready(result)
        times.append((time.perf_counter() - began) / repeats)
    return min(times)


def best_torch(call: Callable[[], Any], repeats: int, rounds: int = 5) -> float:
    """The same for PyTorch."""
    import torch

    def wait() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    call()  # the search for the fastest algorithms
    wait()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(repeats):
            call()
        wait()
        times.append((time.perf_counter() - began) / repeats)
    return min(times)
