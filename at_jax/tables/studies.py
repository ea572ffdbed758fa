"""Which rows a table has, and the config that each of them changes."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from at_jax import methods
from at_jax.tables.paper import ACTIVATION, GRADIENT, MAPPINGS, Figure
from configs import cifar10, cifar10_gradient, digits

# How beta falls where attention transfer joins distillation. The paper says that it does and states no
# law. On held-out images constant, linear and cosine gave the same at beta 100 and 6 epochs, within 0.2
# points (results/cifar10_activation/validation.md); at the paper's 200 epochs none was tried.
_DECAY = {"transfer.decay": "cosine"}


@dataclasses.dataclass(frozen=True)
class Row:
    """What is trained once for every seed.

    Attributes:
      student: by name.
      teacher: by name; the row's own even where its method asks no teacher.
      method: of configs/base.py.
      changes: dotted config keys and their values, beside these three.
      variant: what tells this row from another of the same method, for its name; may be empty.
      label: what a table prints for the method.
      paper: the paper's figure, or None where it has none.
    """

    student: str
    teacher: str
    method: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    variant: str = ""
    label: str = ""
    paper: Figure | None = None

    @property
    def name(self) -> str:
        """For --rows and for folders.

        >>> Row("wrn_16_1", "wrn_16_2", "at", variant="sum4").name
        'wrn_16_1-wrn_16_2-at-sum4'
        >>> Row("wrn_16_1", "wrn_16_2", "none").name
        'wrn_16_1-none'
        """
        teacher = [self.teacher] if methods.needs_teacher(self.method) else []
        return "-".join([self.student, *teacher, self.method, *filter(None, [self.variant])])

    @property
    def pair(self) -> str:
        """Student and teacher, for people."""
        return f"{self.student} <- {self.teacher}"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: its rows, and the config that they share.

    Attributes:
      title: a line.
      config: a fresh config, before any row's changes.
      rows: in the order they are printed in. Two of one name (a student alone, beside two teachers) are
        one run.
      teachers: teacher -> the paper's figure for it, where it has one.
      paper_epochs: that the paper trained for; 0 where it has no such table, or does not say.
    """

    title: str
    config: Callable[[], ml_collections.ConfigDict]
    rows: tuple[Row, ...]
    teachers: Mapping[str, Figure] = dataclasses.field(default_factory=dict)
    paper_epochs: int = 0


def _activation() -> Table:
    rows = []
    for (student, teacher), figures in ACTIVATION.items():
        for method in ("none", "at", "f_actt", "kd", "at+kd"):
            changes = _DECAY if method == "at+kd" else {}
            rows.append(Row(student, teacher, method, changes, label=method, paper=figures[method]))
    return Table(
        "Activation-based attention transfer (table 1 of arXiv:1612.03928)",
        cifar10.get_config,
        tuple(rows),
        {teacher: figures["teacher"] for (_, teacher), figures in ACTIVATION.items()},
        paper_epochs=200,
    )


def _mappings() -> Table:
    pair = ("wrn_16_1", "wrn_16_2")
    figures = ACTIVATION[pair]
    rows = [Row(*pair, "none", label="none", paper=figures["none"])]
    for (kind, p), figure in MAPPINGS.items():
        changes = {"at.kind": kind, "at.p": p}
        variant, label = f"{kind}{p:g}", f"at, F_{kind}^{p:g}"
        rows.append(Row(*pair, "at", changes, variant, label, figure))
    return Table(
        "Mappings from activations to attention (table 2 of arXiv:1612.03928)",
        cifar10.get_config,
        tuple(rows),
        {"wrn_16_2": figures["teacher"]},
        paper_epochs=200,
    )


def _gradient() -> Table:
    return Table(
        "Gradient-based attention transfer (table 3 of arXiv:1612.03928)",
        cifar10_gradient.get_config,
        tuple(
            Row("nin_thin", "nin_wide", method, label=method, paper=figure)
            for method, figure in GRADIENT.items()
        ),
    )


def _digits() -> Table:
    return Table(
        "Handwritten digits, 200 labels",
        digits.get_config,
        tuple(
            Row("wrn_10_1", "wrn_16_2", method, label=method)
            for method in ("none", "at", "kd", "at+kd")
        ),
    )


TABLES: dict[str, Callable[[], Table]] = {
    "cifar10_activation": _activation,
    "cifar10_mappings": _mappings,
    "cifar10_gradient": _gradient,
    "digits": _digits,
}
