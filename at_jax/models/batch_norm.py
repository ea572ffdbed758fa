"""Batch normalization with few passes over memory (Ioffe & Szegedy, arXiv:1502.03167).

    y = (x - mean) a + bias,    a = scale / sqrt(var + epsilon)

The statistics are computed from sums of x and x^2, and those of the derivative from sums of dx and x dx,
all of which read arrays that already exist. For the sum of (x - mean)^2, XLA:CPU first writes x - mean to
memory, and a plain WRN-16-1 step takes 1.18 times as long (batch 128, 2 cores, jax 0.12).

The derivative is exact, in forward and reverse mode to any order. It has no kink where a variance that was
rounded below zero is set to zero.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from at_jax.precision import at_least_float32

__all__ = ["BatchNorm"]


class BatchNorm(nn.Module):
    """Normalize each channel over the batch and over positions, in the dtype of the input.

    Parameters and collections are the same as in ``flax.linen.BatchNorm``: ``scale``, ``bias``;
    ``batch_stats`` with ``mean`` and ``var``. Rounding changes the variance by about 1e-7 mean^2 in
    float32.

    Attributes:
      axis_name: the mapped axis over which statistics are averaged; None on one device.
      momentum: weight of the old value in the running statistics.
      epsilon: added to the variance.
    """

    axis_name: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalize.

        Args:
          x: activations ``(B, ..., C)``, floating point. Half precision is promoted for the arithmetic.
          train: use the statistics of the batch and update the running statistics; otherwise use the
            running statistics.

        Returns:
          The normalized activations, of the shape and dtype of ``x``.
        """
        dtype, x = x.dtype, at_least_float32(x)
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)

        def wide(vector: jax.Array) -> jax.Array:  # (1, ..., 1, C)
            return vector.astype(x.dtype).reshape((1,) * (x.ndim - 1) + shape)

        if not train:
            a = wide(scale) * lax.rsqrt(wide(var.value) + self.epsilon)
            return ((x - wide(mean.value)) * a + wide(bias)).astype(dtype)
        axis_name = None if self.is_initializing() else self.axis_name
        y, *batch = _normalize(x, wide(scale), wide(bias), self.epsilon, axis_name)
        if not self.is_initializing():
            for running, new in zip((mean, var), batch, strict=True):
                old = self.momentum * running.value
                running.value = old + (1 - self.momentum) * new.reshape(shape).astype(old.dtype)
        return y.astype(dtype)


def _mean(x: jax.Array, axis_name: str | None) -> jax.Array:
    mean = jnp.mean(x, axis=tuple(range(x.ndim - 1)), keepdims=True)
    return mean if axis_name is None else lax.pmean(mean, axis_name)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _normalize(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalized x, mean and variance; scale, bias and statistics are (1, ..., 1, C)."""
    mean = _mean(x, axis_name)
    var = jnp.maximum(_mean(x * x, axis_name) - mean * mean, 0)
    a = scale * lax.rsqrt(var + epsilon)
    return (x - mean) * a + bias, mean, var


@_normalize.defjvp
def _normalize_jvp(epsilon: float, axis_name: str | None, primals: Any, tangents: Any) -> Any:
    x, scale, _ = primals
    dx, dscale, dbias = tangents
    y, mean, var = _normalize(*primals, epsilon, axis_name)
    inverse = lax.rsqrt(var + epsilon)
    a = scale * inverse
    dmean = _mean(dx, axis_name)
    dvar = 2 * (_mean(dx * x, axis_name) - dmean * mean)
    da = dscale * inverse - a * dvar * inverse * inverse / 2
    # The terms of one channel are collected before they meet x: their transposes are single sums.
    dy = dx * a + x * da + (dbias - dmean * a - mean * da)
    return (y, mean, var), (dy, dmean, dvar)
