r"""From activations to attention maps.

An activation tensor ``a`` of shape ``(B, H, W, C)`` is reduced to a map that says where (or, for
channel attention, in which channel) the network responds; two networks are then compared by their
normalised maps, which do not depend on the number of channels nor on the scale of the activations.

Section 3.1 of Zagoruyko & Komodakis, "Paying More Attention to Attention", ICLR 2017
(arXiv:1612.03928). All functions are pure, keep float32 and float64, and promote float16 and
bfloat16 to float32 first, because ``|a|**2`` overflows in float16.
"""

import functools

import chex
import jax
import jax.numpy as jnp

from at_jax.precision import at_least_float32


def absolute_power(a: chex.Array, p: float) -> jax.Array:
    """``|a|**p``, elementwise, with every derivative zero (never NaN) where ``a`` is 0.

    Args:
      a: activations, any shape.
      p: exponent, at least 1; a Python number.

    Returns:
      An array of the shape of ``a``.

    Raises:
      ValueError: if ``p`` is below 1, not finite or not a number.

    >>> import jax.numpy as jnp
    >>> absolute_power(jnp.array([-2.0, 0.0, 3.0]), 2)
    Array([4., 0., 9.], dtype=float32)
    """
    if isinstance(p, bool) or not isinstance(p, int | float) or not 1 <= p < float("inf"):
        raise ValueError(f"the exponent p of an attention map must be a number >= 1, got {p!r}")
    if p == 2:
        return jnp.square(a)
    magnitude = jnp.abs(a)
    if p == 1:
        return magnitude
    # Double where: for p < 2 the second derivative p (p-1) |a|^(p-2) is infinite at 0, and infinity
    # times the outer zero would be NaN in double backpropagation. ReLU makes exact zeros common.
    is_zero = magnitude == 0
    return jnp.where(is_zero, 0, jnp.where(is_zero, 1, magnitude) ** p)


@functools.partial(jax.jit, static_argnames="p")
def sum_map(a: chex.Array, p: float = 2) -> jax.Array:
    r"""Sum over channels: :math:`F_{sum}^p(a) = \sum_c |a_c|^p`.

    Args:
      a: activations, ``(B, H, W, C)``.
      p: exponent, at least 1. The larger, the more weight the most discriminative positions get.

    Returns:
      Maps, ``(B, H, W)``, not negative.

    Raises:
      ValueError: if ``p < 1`` or ``a`` is not floating point.

    Section 3.1 of arXiv:1612.03928.

    >>> import jax.numpy as jnp
    >>> sum_map(jnp.array([3.0, -4.0]).reshape(1, 1, 1, 2), p=2)
    Array([[[25.]]], dtype=float32)
    """
    chex.assert_rank(a, 4)
    return jnp.sum(absolute_power(at_least_float32(a), p), axis=-1)  # (B, H, W)


@functools.partial(jax.jit, static_argnames="p")
def max_map(a: chex.Array, p: float = 2) -> jax.Array:
    r"""Maximum over channels: :math:`F_{max}^p(a) = \max_c |a_c|^p`.

    Args:
      a: activations, ``(B, H, W, C)``.
      p: exponent, at least 1.

    Returns:
      Maps, ``(B, H, W)``, not negative.

    Raises:
      ValueError: if ``p < 1`` or ``a`` is not floating point.

    Section 3.1 of arXiv:1612.03928.

    >>> import jax.numpy as jnp
    >>> max_map(jnp.array([3.0, -4.0]).reshape(1, 1, 1, 2), p=1)
    Array([[[4.]]], dtype=float32)
    """
    chex.assert_rank(a, 4)
    return absolute_power(jnp.max(jnp.abs(at_least_float32(a)), axis=-1), p)  # (B, H, W)


@functools.partial(jax.jit, static_argnames="p")
def channel_map(a: chex.Array, p: float = 2) -> jax.Array:
    r"""Channel attention, the sum over positions: :math:`\sum_{h,w} |a_{hw}|^p`.

    Args:
      a: activations, ``(B, H, W, C)``.
      p: exponent, at least 1.

    Returns:
      One number a channel, ``(B, C)``, not negative.

    Raises:
      ValueError: if ``p < 1`` or ``a`` is not floating point.

    >>> import jax.numpy as jnp
    >>> channel_map(jnp.array([3.0, -4.0]).reshape(1, 2, 1, 1), p=1)
    Array([[7.]], dtype=float32)
    """
    chex.assert_rank(a, 4)
    return jnp.sum(absolute_power(at_least_float32(a), p), axis=(1, 2))  # (B, C)


def l2_norm(x: chex.Array) -> jax.Array:
    r"""The Euclidean norm of every example, with a zero gradient where the norm is zero.

    ``jnp.linalg.norm`` has a NaN gradient at 0, which is a legal input here: a dead layer, or a
    student that equals its teacher. Examples are scaled by their largest entry before they are
    squared, so that neither tiny nor huge ones leave the range of float32.

    Args:
      x: ``(B, ...)``, floating point.

    Returns:
      ``(B,)``.

    >>> import jax.numpy as jnp
    >>> l2_norm(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
    Array([5., 0.], dtype=float32)
    """
    x = x.reshape(x.shape[0], -1)  # (B, N)
    # |x| = m |x / m| for every constant m, so m is not differentiated: the result does not depend on it.
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, initial=0))  # (B,)
    is_zero = scale == 0
    scale = jnp.where(is_zero, 1, scale)
    squares = jnp.sum(jnp.square(x / scale[:, None]), axis=-1)
    # Double where: the untaken branch must not see sqrt at 0 either.
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, squares)) * scale)


@jax.jit
def normalize(q: chex.Array) -> jax.Array:
    r"""Flatten every example and divide it by its l2 norm: :math:`vec(q) / \|vec(q)\|_2`.

    Args:
      q: maps, ``(B, ...)``.

    Returns:
      ``(B, N)``, of norm 1 in every row; a zero map gives zeros, with zero gradient, never NaN.

    Raises:
      ValueError: if ``q`` is not floating point.

    The normalisation of equation 2 of arXiv:1612.03928.

    >>> import jax.numpy as jnp
    >>> normalize(jnp.array([[[3.0, 4.0]], [[0.0, 0.0]]]))
    Array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    """
    q = at_least_float32(q)
    q = q.reshape(q.shape[0], -1)  # (B, N)
    # The result does not depend on the scale, so bring the largest entry to 1 by a constant first: the
    # derivative of q / |q| holds 1 / |q|^2, which leaves float32 for norms below 1e-19 or above 1e19.
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(q), axis=-1, keepdims=True, initial=0))  # (B, 1)
    q = q / jnp.where(scale == 0, 1, scale)
    norm = l2_norm(q)[:, None]
    is_zero = norm == 0
    return jnp.where(is_zero, 0, q / jnp.where(is_zero, 1, norm))


@functools.partial(jax.jit, static_argnames="shape")
def resize(q: chex.Array, shape: tuple[int, int]) -> jax.Array:
    """Resize maps, bilinear, antialiased when they shrink (``jax.image.resize``).

    Args:
      q: maps, ``(B, H, W)``.
      shape: the wanted ``(height, width)``, in pixels of the map.

    Returns:
      ``(B, *shape)``.

    Raises:
      ValueError: if ``q`` is not floating point.

    >>> import jax.numpy as jnp
    >>> resize(jnp.ones((2, 8, 8)), (4, 4)).shape
    (2, 4, 4)
    """
    chex.assert_rank(q, 3)
    q = at_least_float32(q)
    if q.shape[1:] == tuple(shape):
        return q
    return jax.image.resize(q, (q.shape[0], *shape), method="bilinear")
