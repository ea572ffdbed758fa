"""Evaluation of the terms of a loss on a batch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from at_jax.errors import UserError, traceable
from at_jax.terms.base import Batch, Term

__all__ = ["measures_of", "weighted_values"]

_CROSS_ENTROPY = "cross_entropy"  # metric of the labels
# First parts of names in metrics.jsonl: loss/<metric>, beta/<metric>.
_TAKEN = ("loss", "beta")


def weighted_values(
    terms: Sequence[Term], batch: Batch, params: Mapping[str, Any], weights: Mapping[str, Any]
) -> Iterator[tuple[str, Any, jax.Array]]:
    """Compute the summands of a loss: the cross-entropy or the term that replaces it first.

    Args:
      terms: of the loss.
      batch: input of the terms.
      params: of all terms, by name.
      weights: of the terms, by name.

    Yields:
      Metric, weight, and the values before the weight, ``(B,)``.

    Raises:
      UserError: for a wrong shape, or a term that JAX cannot trace.
    """
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
    with traceable(f"term {term.name}"):
        values = term.values(batch, params.get(term.name))
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
        with traceable(f"measures() of term {term.name}"):
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


def _check_shape(values: Any, batch: Batch, term: Term, where: str) -> None:
    if (shape := jnp.shape(values)) != batch.images.shape[:1]:
        raise UserError(
            f"term {term.name} must return one number per example, shape {batch.images.shape[:1]}, got "
            f"{shape}: do not take the mean in {where}"
        )
