"""Weights of the terms of one loss."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from at_jax import options
from at_jax.errors import UserError, listed
from at_jax.terms.base import Term

__all__ = ["checked_weights"]

# Of a term that replaces the cross-entropy: the labels have the rest.
_SHARES = options.between(0, 1)


def checked_weights(terms: Sequence[Term], weights: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the weights, or the defaults for None, if every weighted term has one and no other has.

    Args:
      terms: of the loss.
      weights: by the name of the term: scalars, which may be traced.

    Returns:
      Name to Python number, or to a traced scalar.

    Raises:
      UserError: naming the weights without a term, the terms without a weight, or the weight that is not
        a number in the range of the trainer.
    """
    if weights is None:
        return {term.name: term.beta for term in terms if term.beta is not None}
    if not isinstance(weights, Mapping):
        raise UserError(
            f"weights must be a mapping from term to beta, got {type(weights).__name__}: for example "
            "{'at': 1000.0}"
        )
    names = [term.name for term in terms]
    if unknown := [name for name in weights if name not in names]:
        of_metrics = {term.metric: term.name for term in terms}
        fix = "leave it out, or correct the name"
        if unknown[0] in of_metrics:
            fix = f"pass {of_metrics[unknown[0]]!r}, the term, whose metric is {unknown[0]!r}"
        raise UserError(
            f"weights must name terms of the objective, {listed(map(repr, names))}, got "
            f"{listed(map(repr, unknown))}: {fix}"
        )
    needing = [term.name for term in terms if term.beta is not None]
    if missing := [name for name in needing if name not in weights]:
        fix = f"pass weights={{{missing[0]!r}: beta}}"
        raise UserError(f"every term needs a weight, got none for {listed(missing)}: {fix}")
    return {term.name: _checked(term, weights[term.name]) for term in terms if term.name in weights}


def _checked(term: Term, weight: Any) -> Any:
    """The weight of a term as a Python number, or as it is if it is traced."""
    what, rule = f"the weight of {term.name}", options.BETAS if term.beta is not None else _SHARES
    number = weight
    if isinstance(weight, jax.Array | np.ndarray | np.generic):
        if weight.shape:
            raise UserError(
                f"{what} must be a scalar, got shape {weight.shape}: pass one number for all examples"
            )
        if not any(jnp.issubdtype(weight.dtype, kind) for kind in (jnp.floating, jnp.integer)):
            raise UserError(
                f"{what} must be a number, got {weight.dtype}: convert it, for example with "
                "jnp.float32(weight)"
            )
        if isinstance(weight, jax.core.Tracer):
            return weight
        # Not the array: its dtype would become that of the loss.
        number = float(np.asarray(weight))
    if not rule.accepts(number):
        raise UserError(f"{what} must be {rule.text}, got {weight!r}: pass a number")
    return number
