"""Checks of the terms of one loss, and of the arguments of an objective."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from at_jax import freezing, intermediates
from at_jax.checks import NORMALIZE, check_rank
from at_jax.errors import UserError, listed, replacing
from at_jax.terms import interface
from at_jax.terms.base import Batch, Term

__all__ = [
    "check_arguments", "check_batch", "check_images", "check_term_params", "check_terms", "checked_names",
    "checked_points", "checked_terms",
]  # fmt: skip

# Names that are not free: of the student's parameters, and of the metric of the labels.
_RESERVED = ("student", "cross_entropy")


def check_terms(terms: Sequence[Term], *, has_teacher: bool, has_points: bool) -> None:
    """Raise unless the terms can be combined into one loss.

    Raises:
      UserError: naming the terms with missing inputs, or the terms that exclude one another.
    """
    for term in terms:
        interface.check_term(term)
    comparing = [term.name for term in terms if term.compares_taps]
    needing = [term.name for term in terms if term.needs_teacher]
    if needing and not has_teacher:
        raise UserError(
            f"for {listed(needing)}, the objective must have a teacher, got None: pass teacher=, a linen "
            "module"
        )
    if comparing and not has_points:
        raise UserError(
            f"for {listed(comparing)}, the objective must have transfer points, got none: pass points=, "
            "pairs (student point, teacher point)"
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


def checked_terms(terms: Any) -> tuple[Term, ...]:
    """Return terms as a tuple. Raise for a single term, or for the mapping to weights of a trainer."""
    if isinstance(terms, Term):
        raise UserError(f"terms must be a sequence, got {terms!r}: pass [term]")
    if isinstance(terms, Mapping):
        names = {getattr(term, "name", term): weight for term, weight in terms.items()}
        raise UserError(
            f"terms of an objective must be a sequence without weights, got {names}: pass list(terms), and "
            "the weights in each call, as in weights={'at': 1000.0}"
        )
    return tuple(terms)


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


def check_images(images: Any) -> None:
    """Raise unless images are floating point, ``(B, H, W, C)``."""
    check_rank("Objective", 4, fix=NORMALIZE, images=images)


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
    check_images(images)
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
        _check_points("student", "paths_s", [s for s, _ in batch.points], batch.student.taps)
        _check_points("teacher", "paths_t", [t for _, t in batch.points], batch.teacher.taps)
    needing = [term.name for term in terms if term.needs_equal_classes]
    views = (batch.student, batch.teacher_view)
    shapes = {view.logits.shape for view in views if view is not None}
    if needing and len(shapes) > 1:
        raise UserError(
            f"for {listed(needing)}, student and teacher must have the same classes, got logits "
            f"of shape {listed(sorted(shapes))}: build both with the same num_classes"
        )


def _check_points(whose: str, field: str, points: Sequence[str], taps: Mapping[str, Any]) -> None:
    """Raise unless a network has its transfer points; the objective captures submodules in a field."""
    advice = f"capture a submodule by its path, as in {field}=('encoder/layer3',)"
    with replacing([("name a submodule by its path", advice)]):
        intermediates.check_points(points, taps, whose)
