"""Checks of the terms of one loss, and of their weights."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import traverse_util

from at_jax import freezing, intermediates
from at_jax.checks import NORMALIZE, check_array
from at_jax.errors import UserError, listed
from at_jax.terms.base import Batch, Term

__all__ = [
    "check_arguments", "check_batch", "check_complete", "check_teacher", "check_term_params", "check_terms",
    "checked_names", "checked_points", "checked_weights",
]  # fmt: skip

# Names that are not free: of the student's parameters, and of the metric of the labels.
_RESERVED = ("student", "cross_entropy")


def check_terms(terms: Sequence[Term], *, has_teacher: bool, has_points: bool) -> None:
    """Raise unless the terms can be combined into one loss.

    Raises:
      UserError: naming the terms with missing inputs, or the terms that exclude one another.
    """
    for term in terms:
        if not isinstance(term, Term):
            name = getattr(term, "__name__", "AttentionTransfer")
            raise UserError(
                f"terms must be instances of at_jax.terms.Term, got {term!r}: pass them as in [{name}()]"
            )
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
        own = vars(each)
        if "__dataclass_fields__" in own:
            continue
        has_options = any(isinstance(value, dataclasses.Field) for value in own.values())
        if "__init__" in own or has_options:
            fix = "declare its options as fields, under @dataclasses.dataclass(frozen=True)"
            got = (
                "a class with its own __init__"
                if "__init__" in own
                else "a class without @dataclass"
            )
            raise UserError(f"term {kind.__name__} must be a frozen dataclass, got {got}: {fix}")


def checked_names(field: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return names of modules as a tuple. Raise for a single string.

    Args:
      field: of the objective, for the message.
      names: a sequence.
    """
    if isinstance(names, str):
        raise UserError(f"{field} must be a sequence of names, got {names!r}: pass ({names!r},)")
    return tuple(names)


def checked_points(points: Iterable[Any]) -> tuple[tuple[str, str], ...]:
    """Return transfer points as a tuple of tuples. Raise unless each is a pair of names."""
    pairs = tuple(points)
    for pair in pairs:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise UserError(
                f"points must be pairs (student point, teacher point), got {pair!r}: for example "
                "[('group1', 'group1')]"
            )
    return tuple((student, teacher) for student, teacher in pairs)


def check_arguments(
    params: Any, collections: Any, images: Any, keys: Any, freeze: Sequence[str]
) -> None:
    """Raise unless the arguments of an objective have the form that it takes.

    Args:
      params: ``{"student": ..., <term>: ...}``.
      collections: the student's other collections.
      images: normalized, ``(B, H, W, C)``.
      keys: one PRNG key for each image, or None.
      freeze: modules of the student.
    """
    check_array("Objective", fix=NORMALIZE, images=images)
    if not isinstance(params, Mapping) or "student" not in params:
        got = listed(params) if isinstance(params, Mapping) else type(params).__name__
        raise UserError(
            f"params must have the student's parameters as 'student', got {got}: pass "
            "{'student': params}, with those of terms that have modules"
        )
    if not isinstance(collections, Mapping) or "params" in collections:
        got = "params, too" if isinstance(collections, Mapping) else type(collections).__name__
        raise UserError(
            f"collections must be the student's collections but its params, got {got}: for example "
            "{'batch_stats': variables['batch_stats']}, or {} without any"
        )
    if keys is not None and jnp.shape(keys)[:1] != images.shape[:1]:
        raise UserError(
            f"keys must be one PRNG key per example, shape {images.shape[:1]}, got shape "
            f"{jnp.shape(keys)}: use jax.random.split(key, {images.shape[0]})"
        )
    freezing.check(freeze, params["student"])


def check_teacher(module: nn.Module, variables: Any) -> None:
    """Raise unless there are variables of the teacher."""
    if not isinstance(variables, Mapping):
        raise UserError(
            f"teacher must be the variables of {type(module).__name__}, got {type(variables).__name__}: "
            "pass {'params': ..., ...}, or the result of view_teacher"
        )


def check_complete(module: nn.Module, variables: Any, mutated: Mapping[str, Any]) -> None:
    """Raise if the teacher's pass initialized variables that it was not given.

    Args:
      module: the teacher.
      variables: of the teacher.
      mutated: its collections after the pass.
    """
    given, made = (traverse_util.flatten_dict(dict(tree)) for tree in (variables, mutated))
    if missing := sorted("/".join(path) for path in made.keys() - given.keys()):
        raise UserError(
            f"the variables of {type(module).__name__}, the teacher, lack {listed(missing)}: pass them all"
        )


def check_term_params(params: Mapping[str, Any], modules: Iterable[str]) -> None:
    """Raise unless the terms that have modules, and no others, have parameters.

    Args:
      params: of the objective.
      modules: names of the terms that have modules.
    """
    if params.keys() != (expected := {"student", *modules}):
        raise UserError(
            f"params must have the keys {listed(sorted(expected))}, got {listed(sorted(params))}: "
            "Objective.init_params makes those of the terms"
        )


def check_batch(terms: Sequence[Term], batch: Batch) -> None:
    """Raise unless both networks have the transfer points and the classes that the terms compare."""
    if any(term.compares_taps for term in terms):
        intermediates.check_points((s for s, _ in batch.points), batch.student.taps, "student")
        intermediates.check_points((t for _, t in batch.points), batch.teacher.taps, "teacher")
    needing = [term.name for term in terms if term.needs_equal_classes]
    views = (batch.student, batch.teacher_view)
    shapes = {view.logits.shape for view in views if view is not None}
    if needing and len(shapes) > 1:
        raise UserError(
            f"for {listed(needing)}, student and teacher must have the same classes, got logits "
            f"of shape {listed(sorted(shapes))}: build both with the same num_classes"
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
