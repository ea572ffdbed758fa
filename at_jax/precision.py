"""Promotion of half precision, and scaling of examples into the middle of a type's range."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from at_jax.checks import check_floating

__all__ = [
    "Array", "at_least_float32", "magnitude_bits", "nan_where", "power_of_two",
]  # fmt: skip

# Argument of the public functions. Not jax.typing.ArrayLike: numbers have no rank.
Array: TypeAlias = jax.Array | np.ndarray


def at_least_float32(x: Array) -> jax.Array:
    """Promote half precision to float32. Float32 and float64 are kept.

    Args:
      x: floating point, any shape.

    Returns:
      The array in float32 or float64.

    Raises:
      UserError: if ``x`` is not floating point.

    >>> import jax.numpy as jnp
    >>> at_least_float32(jnp.ones(3, jnp.bfloat16)).dtype
    dtype('float32')
    """
    x = jnp.asarray(x)
    check_floating("at_least_float32", x=x)
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def magnitude_bits(x: jax.Array) -> jax.Array:
    """Bits of ``|x|`` as integers of the same width, which are ordered like the magnitudes.

    NaN is larger than infinity in this order. A maximum of floats may drop NaN (XLA:CPU does in large
    arrays); a maximum of these integers does not, and is as fast.

    Args:
      x: float32 or float64, any shape.

    >>> import jax.numpy as jnp
    >>> magnitude_bits(jnp.array([-1.0, jnp.inf])) == magnitude_bits(jnp.array([1.0, jnp.nan]))
    Array([ True, False], dtype=bool)
    """
    integer = jnp.dtype(f"int{8 * x.dtype.itemsize}")
    return lax.bitcast_convert_type(lax.stop_gradient(x), integer) & jnp.iinfo(integer).max


def nan_where(is_nan: jax.Array, dtype: Any) -> jax.Array:
    """NaN where true and 0 elsewhere, from bits: ``jax_debug_nans`` raises for every NaN, even a literal.

    Args:
      is_nan: bool, any shape.
      dtype: float32 or float64.

    >>> import jax.numpy as jnp
    >>> nan_where(jnp.array([True, False]), jnp.float32)
    Array([nan,  0.], dtype=float32)
    """
    integer = jnp.dtype(f"int{8 * jnp.dtype(dtype).itemsize}")
    bits = jnp.where(is_nan, integer.type(jnp.iinfo(integer).max), integer.type(0))
    return lax.bitcast_convert_type(bits, dtype)


def power_of_two(x: jax.Array, axes: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """Power of two s for which the largest ``|s x|`` is in [1, 4), and its inverse.

    Multiplying by a power of two is exact. Both are constants: they are not differentiated. A NaN or an
    infinity in ``x`` remains one in ``s x``. Magnitudes below the normal range count as zero, for which s
    is 1.

    Args:
      x: float32 or float64.
      axes: over which the largest magnitude is taken.

    Returns:
      s and 1 / s, with the rank of ``x`` and size 1 along ``axes``.

    >>> import jax.numpy as jnp
    >>> [float(each[0]) for each in power_of_two(jnp.array([3.0, -40.0]), (0,))]
    [0.03125, 32.0]
    """
    info = jnp.finfo(x.dtype)
    largest = jnp.abs(lax.stop_gradient(x))
    # One axis after the other, the last first: XLA:CPU reduces two axes at once without vectors. Its
    # maximum may drop a NaN: s is then too small or too large for its example, and s x still has the NaN.
    for axis in sorted(axes, reverse=True):
        largest = jnp.max(largest, axis=axis, keepdims=True)
    highest = 2 * (info.maxexp - 1)  # exponent field of the largest finite numbers: 254 in float32
    exponent = magnitude_bits(largest) >> info.nmant
    # Bounded so that s and 1 / s are normal numbers. For zeros s is 1: it multiplies tangents too, and
    # those may be of any size there.
    exponent = jnp.where(exponent == 0, highest // 2, jnp.minimum(exponent, highest - 1))

    def power(field: jax.Array) -> jax.Array:
        return lax.bitcast_convert_type(field << info.nmant, x.dtype)

    return power(highest - exponent), power(exponent)
