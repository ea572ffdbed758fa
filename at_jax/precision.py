"""The one rule about precision: arithmetic that loses half-precision numbers runs in float32."""

import chex
import jax
import jax.numpy as jnp


def at_least_float32(x: chex.Array) -> jax.Array:
    """Half precision to float32; float32 and float64 stay as they are.

    Args:
      x: a floating-point array of any shape.

    Returns:
      The array in float32 or float64.

    Raises:
      ValueError: if ``x`` is not floating point.

    >>> import jax.numpy as jnp
    >>> at_least_float32(jnp.ones(3, jnp.bfloat16)).dtype
    dtype('float32')
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"activations and logits must be floating point, got {x.dtype}: "
            "convert them first, for example with x.astype(jnp.float32)"
        )
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
