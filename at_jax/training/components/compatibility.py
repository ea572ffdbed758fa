"""Student and teacher: their shapes, their transfer points, and what they must agree on."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from at_jax import data, intermediates
from at_jax.data.identity import class_difference
from at_jax.errors import UserError, listed
from at_jax.terms import Term
from at_jax.training.components import tracing
from at_jax.training.components.teacher_images import Normalization

__all__ = [
    "Teacher", "check_classes", "check_points", "check_variables", "other_classes", "pair_points",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A frozen teacher.

    Attributes:
      module: the network.
      variables: its parameters and statistics; None while only shapes matter.
      description: as ``Run.description``; None if the classes are unknown: for a module passed by the
        user, who is also responsible for its normalization, and for most files.
      trained_with: normalization of the images that it was trained on; None if unknown.
    """

    module: nn.Module
    variables: Any = None
    description: dict[str, Any] | None = None
    trained_with: Normalization | None = None


def pair_points(
    texts: Sequence[str], taps_s: dict[str, Any], taps_t: dict[str, Any]
) -> tuple[tuple[str, str], ...]:
    """Pairs (student point, teacher point) from ``"group3<-group3"``; without texts all taps, in order.

    Raises:
      UserError: if a text is malformed, or the numbers of taps differ.
    """
    if not texts:
        if not taps_s or len(taps_s) != len(taps_t):
            last_s, last_t = ([*taps][-1:] or ["Conv_0"] for taps in (taps_s, taps_t))
            pair = f"{last_s[0]}<-{last_t[0]}"
            raise UserError(
                f"student and teacher must tap the same number of transfer points, got {listed(taps_s)} "
                f"and {listed(taps_t)}: choose pairs of taps or of submodules, "
                f"--config.transfer.points=\"('{pair}',)\""
            )
        return tuple(zip(taps_s, taps_t, strict=True))
    pairs = []
    for text in texts:
        student, arrow, teacher = (part.strip() for part in text.partition("<-"))
        if not (student and arrow and teacher):
            raise UserError(
                f"transfer.points: each must be 'student<-teacher', got {text!r}: write for example "
                "'group3<-group3'"
            )
        pairs.append((student, teacher))
    return tuple(pairs)


def check_points(
    pairs: Sequence[tuple[str, str]], taps_s: dict[str, Any], taps_t: dict[str, Any]
) -> None:
    """Raise unless every point exists and is a feature map (B, H, W, C).

    Raises:
      UserError: naming the point, its shape and the fix.
    """
    for whose, taps, names in (
        ("student", taps_s, [s for s, _ in pairs]),
        ("teacher", taps_t, [t for _, t in pairs]),
    ):
        intermediates.check_points(names, taps, whose)
        for name in names:
            if len(shape := taps[name].shape) != 4:
                fix = {
                    3: "reshape tokens (B, N, C) to (B, H, W, C) before the tap",
                    5: "nn.scan stacks the taps of its layers; tap after it",
                }.get(len(shape), "tap a feature map")
                raise UserError(
                    f"{whose} point {name!r} must have shape (B, H, W, C), got "
                    f"{('B', *shape[1:])}: {fix}"
                )


def check_classes(
    terms: Sequence[Term], dataset: data.Dataset, teacher: Teacher, of_teacher: tracing.Shapes
) -> None:
    """Raise if a term compares logits of networks with different classes.

    Args:
      terms: of the loss.
      dataset: with the student's classes.
      teacher: whose classes may be unknown.
      of_teacher: its shapes.

    Raises:
      UserError: naming the terms, and the first class that differs.
    """
    needing = [term.name for term in terms if term.needs_equal_classes]
    if needing and (difference := other_classes(dataset, teacher, of_teacher)):
        raise UserError(
            f"for {listed(needing)}, student and teacher must have the same classes in the same order, got "
            f"{difference}: choose another teacher, or a method such as at"
        )


def other_classes(
    dataset: data.Dataset, teacher: Teacher | None, of_teacher: tracing.Shapes | None
) -> str | None:
    """Describe the first class of a teacher that is not that of the data; None if there is none.

    Args:
      dataset: of the run.
      teacher: None without one. Only its number of classes is known if it was passed by the user.
      of_teacher: its shapes.
    """
    if teacher is None or of_teacher is None:
        return None
    if teacher.description is not None:
        names = teacher.description["class_names"]
        return class_difference(names, dataset.class_names, ("in the teacher", "in the data"))
    if (k := of_teacher.logits.shape[-1]) != dataset.num_classes:
        return f"{k} classes in the teacher and {dataset.num_classes} in the data"
    return None


def check_variables(
    module: nn.Module, variables: Mapping[str, Any], wanted: Mapping[str, Any], whose: str, fix: str
) -> None:
    """Raise unless variables have the shapes of a module's.

    Args:
      module: the network.
      variables: meant for it; sown values are ignored.
      wanted: variables of the module, or their shapes.
      whose: owner of the variables, for the message.
      fix: for the message.

    Raises:
      UserError: naming the first array that differs.
    """

    def described(tree):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}

    given = dict(variables)
    given.pop(intermediates.COLLECTION, None)
    if given and "params" not in given and given.keys() == wanted.get("params", {}).keys():
        raise UserError(
            f"the variables of {whose} must be collections, such as 'params', got the parameters alone: "
            "pass {'params': params}, with other collections such as 'batch_stats'"
        )
    there, wanted = described(given), described(dict(wanted))
    differing = sorted(k for k in there.keys() | wanted.keys() if there.get(k) != wanted.get(k))
    if differing:
        key = differing[0]
        raise UserError(
            f"the variables of {whose} are not those of {type(module).__name__}: {key} should be "
            f"{wanted.get(key, 'absent')}, got {there.get(key, 'absent')}: {fix}"
        )
