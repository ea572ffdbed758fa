"""Evaluation of the terms of a loss on a batch."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from at_jax.errors import UserError
from at_jax.precision import at_least_float32
from at_jax.terms import interface
from at_jax.terms.base import Batch, Term, View

__all__ = ["forward_inputs_of", "measures_of", "weighted_sum"]

_CROSS_ENTROPY = "cross_entropy"  # metric of the labels
# First parts of names in metrics.jsonl: loss/<metric>, beta/<metric>.
_TAKEN = ("loss", "beta")


def weighted_sum(
    terms: Sequence[Term], batch: Batch, params: Mapping[str, Any], weights: Mapping[str, Any]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Compute a loss: the weighted sum of the means of its summands.

    Args:
      terms: of the loss.
      batch: input of the terms.
      params: of all terms, by name.
      weights: of the terms, by name: scalars.

    Returns:
      The scalar loss, and metric to values before the weight, ``(B,)``.

    Raises:
      UserError: for a wrong shape, or code of a term that fails; see :func:`interface.explained`.
    """
    loss: Any = 0.0
    metrics = {}
    for metric, weight, values in _summands(terms, batch, params, weights):
        metrics[metric] = values
        mean = jnp.mean(at_least_float32(values))
        # A weight has no influence on the dtype of the loss.
        loss = loss + jnp.asarray(weight, mean.dtype) * mean
    return loss, metrics


def _summands(
    terms: Sequence[Term], batch: Batch, params: Mapping[str, Any], weights: Mapping[str, Any]
) -> Iterator[tuple[str, Any, jax.Array]]:
    """Metric, weight and values; the cross-entropy or the term that replaces it comes first."""
    replacing = [term for term in terms if term.beta is None]
    if not replacing:
        yield _CROSS_ENTROPY, 1, batch.student.cross_entropy
    for term in replacing:
        share = weights.get(term.name, 1)
        yield term.metric, share, _values_of(term, batch, params)
        if term.name in weights:
            yield _CROSS_ENTROPY, 1 - share, batch.student.cross_entropy
    for term in terms:
        if term.beta is not None:
            yield term.metric, weights[term.name], _values_of(term, batch, params)


def _values_of(term: Term, batch: Batch, params: Mapping[str, Any]) -> jax.Array:
    with _explained(term, "values", batch):
        values = term.values(batch, params.get(term.name))
    if isinstance(values, int) and not batch.points:  # the sum over no points
        raise interface.without_points(term, repr(values))
    _check_shape(values, batch, term, "values()")
    return values


def measures_of(
    terms: Iterable[Term], batch: Batch, params: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """Compute what terms report in addition to their values: metric to ``(B,)``, gradients stopped.

    Raises:
      UserError: for another shape, or a name that is taken.
    """
    found: dict[str, jax.Array] = {}
    for term in terms:
        with _explained(term, "measures", batch):
            measured = term.measures(batch, params.get(term.name))
        for name, values in measured.items():
            if name.partition("/")[0] in _TAKEN:
                raise UserError(
                    f"term {term.name}: measures() must not use the name {name!r}, which a metric of the "
                    "library has: rename it"
                )
            _check_shape(values, batch, term, f"measures()[{name!r}]")
            found[f"{name}/{term.metric}"] = jax.lax.stop_gradient(values)
    return found


def forward_inputs_of(terms: Iterable[Term], teacher: View) -> dict[str, Any]:
    """Keyword arguments that terms pass to the student; see :meth:`Term.forward_inputs`."""
    inputs: dict[str, Any] = {}
    for term in terms:
        with interface.explained(term, "forward_inputs", None, None, teacher.taps):
            inputs |= term.forward_inputs(teacher)
    return inputs


def _explained(term: Term, method: str, batch: Batch) -> contextlib.AbstractContextManager[None]:
    taps_t = batch.teacher_view.taps if batch.teacher_view is not None else None
    return interface.explained(term, method, batch.points, batch.student.taps, taps_t)


def _check_shape(values: Any, batch: Batch, term: Term, where: str) -> None:
    if (shape := jnp.shape(values)) != batch.images.shape[:1]:
        raise UserError(
            f"term {term.name} must return one number per example, shape {batch.images.shape[:1]}, got "
            f"{shape}: do not take the mean in {where}"
        )
