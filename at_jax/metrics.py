"""Metrics as (sum, count) pairs, divided once at the end.

A mean of batch means is wrong when batches differ in size, as padded evaluation batches do; sums and
counts add up over batches, devices and processes.
"""

from collections.abc import Iterable, Mapping

import chex
import jax
import jax.numpy as jnp
import numpy as np

Metrics = dict[str, tuple[chex.Array, chex.Array]]


def from_examples(
    values: chex.Array, weights: chex.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Reduce per-example values to a (sum, count) pair.

    Args:
      values: one number an example, ``(B,)``.
      weights: what each example counts, ``(B,)``; padding counts 0. All 1 when left out.

    Returns:
      Two float32 scalars.

    >>> import jax.numpy as jnp
    >>> [float(x) for x in from_examples(jnp.array([1.0, 3.0]), jnp.array([1.0, 0.0]))]
    [1.0, 1.0]
    """
    values = values.astype(jnp.float32)
    if weights is None:
        return jnp.sum(values), jnp.asarray(values.size, jnp.float32)
    # where, not a product: a padded example that overflows must not turn the sum into NaN.
    return jnp.sum(jnp.where(weights > 0, values * weights, 0)), jnp.sum(weights)


def errors(logits: chex.Array, labels: chex.Array) -> jax.Array:
    """1 where the top class is wrong, else 0: logits (B, K), labels (B,) -> float32 (B,)."""
    # An all-NaN row has no top class; argmax would call it class 0 and be right one time in K.
    wrong = (jnp.argmax(logits, axis=-1) != labels) | jnp.any(jnp.isnan(logits), axis=-1)
    return wrong.astype(jnp.float32)


def total(parts: Iterable[Mapping[str, tuple]]) -> dict[str, tuple[float, float]]:
    """Add up metrics on the host, in float64; sums and counts may be arrays of any shape.

    >>> total([{"error": (1.0, 4.0)}, {"error": ([1.0, 2.0], [4.0, 4.0])}])
    {'error': (4.0, 12.0)}
    """
    result: dict[str, tuple[float, float]] = {}
    for part in parts:
        for name, pair in part.items():
            old = result.get(name, (0.0, 0.0))
            result[name] = tuple(
                before + float(np.sum(np.asarray(value, np.float64)))
                for before, value in zip(old, pair, strict=True)
            )
    return result


def means(metrics: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Divide: name -> sum / count.

    >>> means({"error": (3.0, 12.0)})
    {'error': 0.25}
    """
    return {name: value / count for name, (value, count) in metrics.items()}
