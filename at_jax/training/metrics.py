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

from at_jax.precision import at_least_float32

__all__ = [
    "ERRORS", "Metrics", "error_metrics", "errors", "from_examples", "information", "is_loss", "means",
    "percent", "predictions", "shown", "total",
]  # fmt: skip

Metrics = dict[str, tuple[chex.Array, chex.Array]]

# With at most ten classes, five guesses say little.
_MOST_FOR_TOP1 = 10
ERRORS = (_TOP1, _TOP5) = ("error", "top5_error")


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


def errors(logits: chex.Array, labels: chex.Array, top: int = 1) -> jax.Array:
    """Top-1 error of each example, or its error with ``top`` guesses.

    Args:
      logits: ``(B, K)``.
      labels: ``(B,)``, integers.
      top: number of guesses: the classes of the largest logits, of equal logits the first.

    Returns:
      ``(B,)`` float32: 1 where the label is none of the guesses, else 0. A row with NaN counts as an error,
      and so does a label that is no class.

    >>> import jax.numpy as jnp
    >>> errors(jnp.array([[2.0, 1.0], [2.0, 1.0]]), jnp.array([0, 1])).tolist()
    [0.0, 1.0]
    >>> errors(jnp.array([[3.0, 2.0, 1.0]] * 3), jnp.array([0, 1, 2]), top=2).tolist()
    [0.0, 0.0, 1.0]
    """
    if top == 1:
        missed = jnp.argmax(logits, axis=-1) != labels
    else:
        labels = labels[:, None]
        own = jnp.take_along_axis(logits, labels, axis=-1)  # (B, 1)
        is_before = jnp.arange(logits.shape[-1])[None] < labels
        missed = jnp.sum((logits > own) | ((logits == own) & is_before), axis=-1) >= top
        missed |= ((labels < 0) | (labels >= logits.shape[-1]))[:, 0]
    # Comparisons with NaN are false, and argmax of an all-NaN row is class 0: both would look correct.
    wrong = missed | jnp.any(jnp.isnan(logits), axis=-1)
    return wrong.astype(jnp.float32)


def error_metrics(
    logits: chex.Array, labels: chex.Array, weights: chex.Array | None = None
) -> Metrics:
    """Metric ``error``, and ``top5_error`` with more than ten classes.

    Args:
      logits: ``(B, K)``.
      labels: ``(B,)``, integers.
      weights: as for :func:`from_examples`.
    """
    measured = {_TOP1: from_examples(errors(logits, labels), weights)}
    if logits.shape[-1] > _MOST_FOR_TOP1:
        measured[_TOP5] = from_examples(errors(logits, labels, top=5), weights)
    return measured


def is_loss(name: str) -> bool:
    """Whether a metric is the loss, or a term of it.

    >>> [is_loss(name) for name in ("loss", "loss/at", "error", "gradient_norm_student/min_l2")]
    [True, True, False, False]
    """
    return name == "loss" or name.startswith("loss/")


def predictions(logits: chex.Array, weights: chex.Array) -> dict[str, jax.Array]:
    """Sums over a batch, from which :func:`information` is computed.

    Args:
      logits: ``(B, K)``.
      weights: ``(B,)``, 0 for padded examples.

    Returns:
      ``probabilities`` ``(K,)`` and ``entropy`` ``()``: sums over examples.
    """
    log_p = jax.nn.log_softmax(at_least_float32(logits))  # (B, K)
    p = jnp.exp(log_p)
    entropy = -jnp.sum(jnp.where(p == 0, 0, p * log_p), axis=-1)  # (B,); log p may be -inf
    real = weights > 0  # where() and not a product, as in from_examples
    return {
        "probabilities": jnp.sum(jnp.where(real[:, None], p, 0), axis=0),
        "entropy": jnp.sum(jnp.where(real, entropy, 0)),
    }


def information(parts: Iterable[Mapping[str, Any]]) -> float:
    """Mutual information of image and predicted class in nats; 0 if it does not depend on the image.

    The entropy of the mean prediction minus the mean entropy of a prediction: between 0 and log K, whatever
    the labels, the scale of the logits and the number of classes.

    Args:
      parts: of :func:`predictions`, for all batches.

    >>> constant, sure = [[1.0, 0.0], [1.0, 0.0]], [[50.0, 0.0], [0.0, 50.0]]
    >>> [abs(round(information([predictions(jnp.array(z), jnp.ones(2))]), 4)) for z in (constant, sure)]
    [0.0, 0.6931]
    """
    parts = list(parts)
    sums = np.sum([np.asarray(part["probabilities"], np.float64) for part in parts], axis=0)  # (K,)
    count = np.sum(sums)
    mean = sums / count
    of_mean = -np.sum(mean * np.log(np.where(mean == 0, 1, mean)))
    return float(of_mean - sum(float(part["entropy"]) for part in parts) / count)


def percent(means: Mapping[str, float], split: str) -> dict[str, float]:
    """Errors in percent, as they are named in metrics.jsonl and result.json.

    >>> percent({"error": 0.25, "loss": 1.0}, "test")
    {'test_error': 25.0}
    """
    return {f"{split}_{name}": 100 * means[name] for name in ERRORS if name in means}


def shown(found: Mapping[str, Any], name: str = "test_error") -> str:
    """Format an error, and the top-5 error next to it where there is one.

    >>> shown({"test_error": 30.4}), shown({"test_error": 30.4, "test_top5_error": 10.8})
    ('30.40 %', '30.40 % (top-5 10.80 %)')
    """
    top5 = found.get(name.removesuffix("error") + _TOP5)
    return f"{found[name]:.2f} %" + ("" if top5 is None else f" (top-5 {top5:.2f} %)")


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
