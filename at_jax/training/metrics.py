"""Metrics as (sum, count) pairs that are divided once, at the end.

A mean of batch means is wrong when batches differ in size, as padded evaluation batches do. Sums and
counts add up over batches, devices and processes.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Metrics", "errors", "from_examples", "means", "total"]

Metrics = dict[str, tuple[chex.Array, chex.Array]]


def from_examples(
    values: chex.Array, weights: chex.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Reduce per-example values to their weighted sum and the sum of the weights.

    Args:
      values: ``(B,)``.
      weights: ``(B,)``, 0 for padded examples; all 1 if omitted.

    Returns:
      Sum and count, two float32 scalars.

    >>> import jax.numpy as jnp
    >>> [float(x) for x in from_examples(jnp.array([1.0, 3.0]), jnp.array([1.0, 0.0]))]
    [1.0, 1.0]
    """
    values = values.astype(jnp.float32)
    if weights is None:
        return jnp.sum(values), jnp.asarray(values.size, jnp.float32)
    # where() and not a product alone: 0 times the infinity of a padded example is NaN.
    return jnp.sum(jnp.where(weights > 0, values * weights, 0)), jnp.sum(weights)


def errors(logits: chex.Array, labels: chex.Array) -> jax.Array:
    """Top-1 error of each example.

    Args:
      logits: ``(B, K)``.
      labels: ``(B,)``, integers.

    Returns:
      ``(B,)`` float32: 1 where the class of the largest logit is not the label, else 0. A row with NaN
      counts as an error.

    >>> import jax.numpy as jnp
    >>> errors(jnp.array([[2.0, 1.0], [2.0, 1.0]]), jnp.array([0, 1])).tolist()
    [0.0, 1.0]
    """
    # argmax of an all-NaN row is class 0, which would count as correct for one label in K.
    wrong = (jnp.argmax(logits, axis=-1) != labels) | jnp.any(jnp.isnan(logits), axis=-1)
    return wrong.astype(jnp.float32)


def total(parts: Iterable[Mapping[str, tuple[Any, Any]]]) -> dict[str, tuple[float, float]]:
    """Add metrics on the host, in float64.

    Args:
      parts: name to (sum, count) of each part; sums and counts are arrays of any shape.

    Returns:
      Name to (sum, count) over all parts.

    >>> total([{"error": (1.0, 4.0)}, {"error": ([1.0, 2.0], [4.0, 4.0])}])
    {'error': (4.0, 12.0)}
    """
    result: dict[str, tuple[float, float]] = {}
    for part in parts:
        for name, (sums, counts) in part.items():
            old_sum, old_count = result.get(name, (0.0, 0.0))
            result[name] = (old_sum + _sum(sums), old_count + _sum(counts))
    return result


def means(metrics: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Divide each sum by its count.

    >>> means({"error": (3.0, 12.0)})
    {'error': 0.25}
    """
    return {name: value / count for name, (value, count) in metrics.items()}


def _sum(values: Any) -> float:
    return float(np.sum(np.asarray(values, np.float64)))
