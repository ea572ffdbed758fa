"""Checks of the terms of one loss, and of their weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from at_jax.errors import UserError, listed
from at_jax.terms.base import Term

__all__ = ["check_params", "check_terms", "checked_weights"]

# Names that are not free: of the student's parameters, and of the metric of the labels.
_RESERVED = ("student", "cross_entropy")


def check_terms(terms: Sequence[Term], *, has_teacher: bool, has_points: bool) -> None:
    """Raise unless the terms can be combined into one loss.

    Raises:
      UserError: naming the terms with missing inputs, or the terms that exclude one another.
    """
    for term in terms:
        _check_is_dataclass(type(term))
    comparing = [term.name for term in terms if term.compares_taps]
    needing = [term.name for term in terms if term.needs_teacher]
    if needing and not has_teacher:
        raise UserError(
            f"{listed(needing)} need a teacher, got None: pass teacher=, a linen module"
        )
    if comparing and not has_points:
        raise UserError(
            f"{listed(comparing)} need transfer points, got none: pass points=, pairs "
            "(student point, teacher point)"
        )
    for what in ("name", "metric"):
        names = [getattr(term, what) for term in terms]
        if len({*names, *_RESERVED}) < len(names) + len(_RESERVED):
            raise UserError(
                f"terms must have different {what}s, and none of {listed(_RESERVED)}, got "
                f"{listed(names)}: rename one"
            )
    if len(replacing := [term.name for term in terms if term.beta is None]) > 1:
        raise UserError(
            f"one term can replace the cross-entropy, got {listed(replacing)}: pass one of them"
        )


def _check_is_dataclass(kind: type[Term]) -> None:
    """Raise if options are not fields, which equality and the record of a run compare."""
    for each in kind.__mro__[: kind.__mro__.index(Term)]:
        if "__init__" in vars(each) and "__dataclass_fields__" not in vars(each):
            fix = "declare its options as fields, under @dataclasses.dataclass(frozen=True)"
            got = f"term {kind.__name__} must be a frozen dataclass, got a class with its own __init__"
            raise UserError(f"{got}: {fix}")


def check_params(params: Any) -> None:
    """Raise unless parameters are those of an objective, ``{"student": ..., <term>: ...}``."""
    if not isinstance(params, Mapping) or "student" not in params:
        got = listed(params) if isinstance(params, Mapping) else type(params).__name__
        raise UserError(
            f"params must have the student's parameters as 'student', got {got}: pass "
            "{'student': params}, with those of terms that have modules"
        )


def checked_weights(terms: Sequence[Term], weights: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the weights, or the defaults for None, if every weighted term has one and no other has.

    Raises:
      UserError: naming the terms without a weight, or the weights without a term; or for another type.
    """
    defaults = {term.name: term.beta for term in terms if term.beta is not None}
    if weights is None:
        return defaults
    if not isinstance(weights, Mapping):
        raise UserError(
            f"weights must be a mapping from term to beta, got {type(weights).__name__}: for example "
            "{'at': 1000.0}"
        )
    if missing := [name for name in defaults if name not in weights]:
        fix = f"pass weights={{{missing[0]!r}: beta}}"
        raise UserError(f"every term needs a weight, got none for {listed(missing)}: {fix}")
    names = [term.name for term in terms]
    if unknown := [name for name in weights if name not in names]:
        raise UserError(
            f"weights must name terms of the objective, {listed(map(repr, names))}, got "
            f"{listed(map(repr, unknown))}: leave it out, or correct the name"
        )
    return weights
