"""Average pooling of activations. :mod:`at_jax.maps` exports the function of this module."""

import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from at_jax.checks import check_rank
from at_jax.errors import UserError
from at_jax.precision import Array, at_least_float32

__all__ = ["pool", "whole_numbers"]


def whole_numbers(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape as Python integers; an empty tuple if anything in it is not a whole number.

    >>> whole_numbers(np.array([4, 2])), whole_numbers((4, True)), whole_numbers(4)
    ((4, 2), (), ())
    """
    try:
        sizes = tuple(operator.index(size) for size in shape)
        return () if any(isinstance(size, bool) for size in shape) else sizes
    except TypeError:
        return ()


def pool(a: Array, shape: Sequence[int]) -> jax.Array:
    """Average-pool activations to a smaller size, with windows as in PyTorch's adaptive pooling.

    Position i of n covers positions ``floor(i N / n)`` to ``ceil((i + 1) N / n)`` of N.

    Args:
      a: activations, ``(B, H, W, C)``.
      shape: height and width of the result, at most H and W.

    Returns:
      ``(B, *shape, C)``; half precision is promoted to float32. A NaN or an infinity may spread to windows
      that do not contain it, in the same channel of its example, because pooling is a product with a
      matrix.

    Raises:
      UserError: for a wrong rank or dtype, or a shape that is not two whole numbers from 1 to H and W.

    >>> import jax.numpy as jnp
    >>> pool(jnp.array([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1), (2, 1)).ravel()
    Array([1.5, 4. ], dtype=float32)
    """
    check_rank("pool", 4, a=a)
    sizes = whole_numbers(shape)
    pairs = zip(sizes, a.shape[1:3], strict=False)
    if len(sizes) != 2 or not all(1 <= n <= size for n, size in pairs):
        raise UserError(
            f"pool: shape must be two whole numbers, from 1 to {a.shape[1]} and from 1 to {a.shape[2]}, "
            f"got {shape!r}: pass (height, width)"
        )
    return _pool(a, sizes)


@functools.partial(jax.jit, static_argnames="shape")
def _pool(a, shape):
    a = at_least_float32(a)
    for axis, size in enumerate(shape, start=1):
        if a.shape[axis] != size:
            weights = jnp.asarray(_windows(a.shape[axis], size), a.dtype)
            # A lower precision, the default on GPU and TPU, would be visible in normalized maps.
            pooled = jnp.tensordot(weights, a, (1, axis), precision=lax.Precision.HIGHEST)
            a = jnp.moveaxis(pooled, 0, axis)
    return a


def _windows(size: int, pooled: int) -> np.ndarray:
    """Share of each position (columns) in each window (rows)."""
    begin = np.arange(pooled) * size // pooled
    end = -(-np.arange(1, pooled + 1) * size // pooled)
    position = np.arange(size)
    inside = (position >= begin[:, None]) & (position < end[:, None])
    return inside / np.sum(inside, axis=1, keepdims=True)
