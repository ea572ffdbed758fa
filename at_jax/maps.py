r"""Attention maps of activations.

A map reduces an activation tensor ``(B, H, W, C)`` to the strength of the response at each position or in
each channel. Losses compare the normalized maps of student and teacher. Those do not depend on the scale of
the activations, and maps over positions do not depend on the number of channels.

The maps keep float32 and float64, and promote float16 and bfloat16 to float32, because ``|a|**2``
overflows in float16.

Section 3.1 of Zagoruyko & Komodakis, "Paying More Attention to Attention", ICLR 2017
(arXiv:1612.03928).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from at_jax.checks import check_exponent, check_rank
from at_jax.errors import UserError
from at_jax.norms import l2_norm, normalize
from at_jax.pooling import pool, whole_numbers
from at_jax.precision import Array, at_least_float32, magnitude_bits

__all__ = ["channel_map", "l2_norm", "max_map", "normalize", "pool", "resize", "sum_map"]


def _absolute_power(a, p):
    """``|a|**p``, elementwise.

    Where ``a`` is 0, every derivative is zero, never NaN, with one exception: the second derivative of
    ``|a|**2`` is 2.
    """
    if p == 2:
        return jnp.square(a)
    magnitude = jnp.abs(a)
    is_zero = magnitude == 0
    if p == 1:
        return jnp.where(is_zero, 0, magnitude)  # JAX's derivative of |a| is 1 at 0
    # Double where: for p < 2 the second derivative p (p-1) |a|^(p-2) is infinite at 0, and infinity
    # times the outer zero would be NaN in double backpropagation. ReLU makes exact zeros common.
    return jnp.where(is_zero, 0, jnp.where(is_zero, 1, magnitude) ** p)


def sum_map(a: Array, p: float = 2) -> jax.Array:
    r"""Sum over channels: :math:`F_{sum}^p(a) = \sum_c |a_c|^p`.

    Args:
      a: activations, ``(B, H, W, C)``.
      p: exponent, at least 1. A larger exponent gives more weight to the strongest positions.

    Returns:
      Maps, ``(B, H, W)``, nonnegative.

    Raises:
      UserError: for a wrong rank or dtype, or ``p < 1``.

    Section 3.1 of arXiv:1612.03928.

    >>> import jax.numpy as jnp
    >>> sum_map(jnp.array([3.0, -4.0]).reshape(1, 1, 1, 2), p=2)
    Array([[[25.]]], dtype=float32)
    """
    check_rank("sum_map", 4, a=a)
    return _sum_map(a, check_exponent("sum_map", p))


@functools.partial(jax.jit, static_argnames="p")
def _sum_map(a, p):
    return jnp.sum(_absolute_power(at_least_float32(a), p), axis=-1)  # (B, H, W)


def max_map(a: Array, p: float = 2) -> jax.Array:
    r"""Maximum over channels: :math:`F_{max}^p(a) = \max_c |a_c|^p`.

    Args:
      a: activations, ``(B, H, W, C)``.
      p: exponent, at least 1.

    Returns:
      Maps, ``(B, H, W)``, nonnegative. Ties between channels give the gradient to the first one.

    Raises:
      UserError: for a wrong rank or dtype, or ``p < 1``.

    Section 3.1 of arXiv:1612.03928.

    >>> import jax.numpy as jnp
    >>> max_map(jnp.array([3.0, -4.0]).reshape(1, 1, 1, 2), p=1)
    Array([[[4.]]], dtype=float32)
    """
    check_rank("max_map", 4, a=a)
    return _max_map(a, check_exponent("max_map", p))


@functools.partial(jax.jit, static_argnames="p")
def _max_map(a, p):
    return _absolute_power(_largest_magnitude(at_least_float32(a)), p)  # (B, H, W)


@jax.custom_jvp
def _largest_magnitude(a):
    """(B, H, W, C) -> (B, H, W)."""
    return lax.bitcast_convert_type(jnp.max(magnitude_bits(a), axis=-1), a.dtype)


@_largest_magnitude.defjvp
def _largest_magnitude_jvp(primals, tangents):
    # The derivative of jnp.max divides by the number of elements equal to the maximum. XLA may compute
    # the operand twice, with different rounding; none is equal then. An index has no such gap.
    (a,), (da,) = primals, tangents
    index = jnp.argmax(magnitude_bits(a), axis=-1, keepdims=True)  # (B, H, W, 1)
    channels = lax.broadcasted_iota(index.dtype, a.shape, 3)
    # Not 0 at 0: the second derivative of |a|^2 would be 0 there. The power makes the first one 0.
    sign = jnp.where(a == 0, 1, jnp.sign(a))
    slope = jnp.where(channels == index, sign, 0)
    return _largest_magnitude(a), jnp.sum(slope * da, axis=-1)


def channel_map(a: Array, p: float = 2) -> jax.Array:
    r"""Channel attention, the sum over positions: :math:`\sum_{h,w} |a_{hw}|^p`.

    Args:
      a: activations, ``(B, H, W, C)``.
      p: exponent, at least 1.

    Returns:
      One number per channel, ``(B, C)``, nonnegative.

    Raises:
      UserError: for a wrong rank or dtype, or ``p < 1``.

    >>> import jax.numpy as jnp
    >>> channel_map(jnp.array([3.0, -4.0]).reshape(1, 2, 1, 1), p=1)
    Array([[7.]], dtype=float32)
    """
    check_rank("channel_map", 4, a=a)
    return _channel_map(a, check_exponent("channel_map", p))


@functools.partial(jax.jit, static_argnames="p")
def _channel_map(a, p):
    return jnp.sum(_absolute_power(at_least_float32(a), p), axis=(1, 2))  # (B, C)


def resize(q: Array, shape: Sequence[int]) -> jax.Array:
    """Resize maps bilinearly, with antialiasing where they shrink (``jax.image.resize``).

    Args:
      q: maps, ``(B, H, W)``.
      shape: height and width of the result, in pixels of the map.

    Returns:
      ``(B, *shape)``; half precision is promoted to float32. A NaN or an infinity in a map may spread to
      positions whose weights for it are 0, because a resize is a product with a matrix.

    Raises:
      UserError: for a wrong rank or dtype, or a shape that is not two whole numbers of at least 1.

    >>> import jax.numpy as jnp
    >>> resize(jnp.ones((2, 8, 8)), (4, 4)).shape
    (2, 4, 4)
    """
    check_rank("resize", 3, q=q)
    sizes = whole_numbers(shape)
    if len(sizes) != 2 or min(sizes) < 1:
        raise UserError(
            f"resize: shape must be two whole numbers of at least 1, got {shape!r}: pass (height, width)"
        )
    return _resize(q, sizes)


@functools.partial(jax.jit, static_argnames="shape")
def _resize(q, shape):
    q = at_least_float32(q)
    if q.shape[1:] == shape:
        return q
    return jax.image.resize(q, (q.shape[0], *shape), method="bilinear")
