"""Loss terms. The registry ``TERMS`` provides methods, config sections, labels and rules."""

import difflib

from at_jax.errors import UserError, listed
from at_jax.terms.activations import ActivationTransfer, AttentionTransfer
from at_jax.terms.base import Batch, Term, changes_forward_pass
from at_jax.terms.input_gradients import FlipSymmetry, GradientTransfer, MinL2
from at_jax.terms.labels import Distillation
from at_jax.terms.output_gradients import JacobianMatching, MapGradientTransfer, SobolevTraining
from at_jax.terms.view import View

__all__ = [
    "TERMS",
    "ActivationTransfer",
    "AttentionTransfer",
    "Batch",
    "Distillation",
    "FlipSymmetry",
    "GradientTransfer",
    "JacobianMatching",
    "MapGradientTransfer",
    "MinL2",
    "SobolevTraining",
    "Term",
    "View",
    "changes_forward_pass",
    "color",
    "in_display_order",
    "needs_teacher",
    "parts",
    "title",
]

# The order in which methods are listed and terms are added up. A new term: its class, and a line here.
TERMS: dict[str, type[Term]] = {
    term.name: term
    for term in (
        Distillation,
        AttentionTransfer,
        ActivationTransfer,
        GradientTransfer,
        FlipSymmetry,
        MinL2,
        JacobianMatching,
        SobolevTraining,
        MapGradientTransfer,
    )
}

_NONE_TITLE, _NONE_COLOR = "labels only", "#767676"


def parts(method: str, key: str = "method") -> tuple[str, ...]:
    """Split a method into the names of its terms.

    Args:
      method: ``"none"``, or names of terms joined by ``+``, in any order.
      key: the config key that holds it, for messages.

    Returns:
      Names in ``TERMS``, in its order.

    Raises:
      UserError: for an unknown term, one named twice, or another type.

    >>> parts("at+kd"), parts("none")
    (('kd', 'at'), ())
    """
    if not isinstance(method, str):
        raise UserError(
            f"{key} must be a string, got {method!r}: join the names of terms, as in 'at+kd'"
        )
    names = () if method == "none" else tuple(method.split("+"))
    if len(set(names)) < len(names):
        raise UserError(f"{key} must name each term once, got {method!r}: for example at+kd")
    if unknown := [name for name in names if name not in TERMS]:
        close = difflib.get_close_matches(unknown[0].lower(), TERMS, n=1)
        fix = f"did you mean {close[0]}?" if close else f"replace {listed(map(repr, unknown))}"
        if "," in method:
            typed = tuple(name for each in method.split(",") if (name := each.strip()))
            several = repr(typed).replace(" ", "")
            fix = f'write several methods as a tuple, "{several}"'
            if all(name in TERMS for name in typed):
                fix = f"join terms of one loss, {'+'.join(typed)}, or {fix}"
        raise UserError(
            f"{key} must be none, one of {', '.join(TERMS)}, or several joined by '+' as in at+kd, got "
            f"{method!r}: {fix}"
        )
    return tuple(name for name in TERMS if name in names)


def needs_teacher(method: str) -> bool:
    """Whether any term of a method compares the student with a teacher.

    Raises:
      UserError: as :func:`parts`.

    >>> needs_teacher("flip_symmetry+kd"), needs_teacher("flip_symmetry")
    (True, False)
    """
    return any(TERMS[name].needs_teacher for name in parts(method))


def title(method: str) -> str:
    """Name of a method in figures and tables. A user-defined term has its own name.

    >>> title("none"), title("kd+at")
    ('labels only', 'attention transfer + distillation')
    """
    names = in_display_order(method)
    return " + ".join(TERMS[n].title if n in TERMS else n for n in names) or _NONE_TITLE


def color(method: str) -> str:
    """Color of a method in every figure, ``"#RRGGBB"``; the order of its parts does not matter.

    >>> color("at"), color("kd+at") == color("at+kd")
    ('#D55E00', True)
    >>> color("jacobian"), color("jacobian+kd")
    ('#8C564B', '#54332D')
    """
    names = in_display_order(method)
    if not names:
        return _NONE_COLOR
    term = TERMS.get(names[0], Term)
    if len(names) == 1:
        return term.color
    red_green_blue = (int(term.color[start : start + 2], 16) for start in (1, 3, 5))
    return term.color_combined or "#" + "".join(f"{c * 6 // 10:02X}" for c in red_green_blue)


def in_display_order(method: str) -> list[str]:
    """Names of the terms of a method, as tables and figures order them.

    Args:
      method: as for :func:`parts`; user-defined terms have any name.

    Returns:
      Names in the order of ``TERMS``; those that replace the cross-entropy come last.

    >>> in_display_order("kd+at"), in_display_order("none")
    (['at', 'kd'], [])
    """
    names = [] if method == "none" else method.split("+")
    order = list(TERMS)
    return sorted(
        names,
        key=lambda name: (
            TERMS.get(name, Term).beta is None,
            order.index(name) if name in TERMS else len(order),
        ),
    )
