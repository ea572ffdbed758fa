"""Promotion of half precision, for arithmetic that would overflow or round too coarsely in it."""

import jax
import jax.numpy as jnp

from at_jax.errors import UserError

__all__ = ["at_least_float32"]


def at_least_float32(x: jax.Array) -> jax.Array:
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
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise UserError(
            f"activations, logits and gradients must be floating point, got {x.dtype}: "
            "convert them first, for example with x.astype(jnp.float32)"
        )
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
