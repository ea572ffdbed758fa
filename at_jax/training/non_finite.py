"""Exception for a loss or a parameter that is not finite, and advice."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp

from at_jax.training.setup import Run

__all__ = ["NonFinite", "remedy"]


class NonFinite(Exception):
    """A loss or a parameter is not a finite number.

    Attributes:
      workdir: of the run.
    """

    def __init__(self, message: str, workdir: pathlib.Path):
        super().__init__(message)
        self.workdir = workdir


def remedy(run: Run, step: int, what: str) -> str:
    """Format the advice on a loss that is not finite.

    Args:
      run: that was stopped.
      step: at which the first number was not finite, counted from 1.
      what: names of the metrics or of the state that are not finite, joined by " and ".
    """
    if run.teacher is not None and not _is_finite(run.teacher.variables):
        return "the teacher's variables are not finite: use another teacher (teacher.checkpoint)"
    if what == "loss" and run.objective.terms:
        weights = " or ".join(f"{name}.beta" for name in run.objective.weighted_terms)
        return f"every term is finite, their weighted sum is not: lower {weights}"
    if step > 1:
        weights = "".join(f" or {name}.beta" for name in run.objective.weighted_terms)
        rate = "optimizer.learning_rate" if run.reads_rate else "the rate of optimizer="
        return f"lower {rate}{weights}, and start in another --workdir"
    # Before the first update, the learning rate has had no effect.
    names = what.split(" and ")
    terms = [term for term in run.objective.terms if f"loss/{term.metric}" in names]
    options = [
        f"{term.name}.{field.name}"
        for term in terms
        for field in dataclasses.fields(term)
        if isinstance(getattr(term, field.name), float)
    ]
    suspects = ["the images", "data.mean and data.std"]
    keeps_labels = all(term.beta is not None for term in run.objective.terms)
    if terms and len(names) <= len(run.objective.terms) + keeps_labels:
        # "loss" is one of the names: another part of the loss is finite on the same images.
        suspects = [f"the values of term {term.name}" for term in terms]
    return f"nothing is trained yet, so no rate is the cause: check {', '.join(suspects + options)}"


def _is_finite(variables: object) -> bool:
    return all(
        bool(jnp.all(jnp.isfinite(leaf)))
        for leaf in jax.tree.leaves(variables)
        if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)
    )
