"""Advice for a loss or a parameter that is not finite."""

import dataclasses

import jax
import jax.numpy as jnp

from at_jax.training.setup import Run

__all__ = ["remedy"]


def remedy(run: Run, step: int, what: str) -> str:
    """Format the advice on a loss that is not finite.

    Args:
      run: that was stopped.
      step: at which the first number was not finite, counted from 1.
      what: names of the metrics or of the state that are not finite, joined by " and ".
    """
    if run.teacher is not None and not _is_finite(run.teacher.variables):
        return "the teacher's variables are not finite: use another teacher (teacher.checkpoint)"
    metrics = [f"loss/{term.metric}" for term in run.objective.terms]
    terms = [
        term
        for term, metric in zip(run.objective.terms, metrics, strict=True)
        if metric in what.split(" and ")
    ]
    if step > 1 and not (what == "loss" and run.objective.terms):
        return "lower optimizer.learning_rate or the weight beta, and start in another --workdir"
    if what == "loss":
        weights = " or ".join(f"{name}.beta" for name in run.objective.weighted_terms)
        return f"every term is finite, their weighted sum is not: lower {weights}"
    # Before the first update, the learning rate has had no effect.
    options = [
        f"{term.name}.{field.name}"
        for term in terms
        for field in dataclasses.fields(term)
        if isinstance(getattr(term, field.name), float)
    ]
    keeps_labels = all(term.beta is not None for term in run.objective.terms)
    if terms and len(what.split(" and ")) <= len(run.objective.terms) + keeps_labels:
        # "loss" is one of the names: another part of the loss is finite on the same images.
        found = ", ".join([*(f"the values of term {term.name}" for term in terms), *options])
        return f"nothing is trained yet, so no rate is the cause: check {found}"
    keys = ", ".join(["the images", "data.mean and data.std", *options])
    return f"nothing is trained yet, so no rate is the cause: check {keys}"


def _is_finite(variables: object) -> bool:
    return all(
        bool(jnp.all(jnp.isfinite(leaf)))
        for leaf in jax.tree.leaves(variables)
        if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)
    )
