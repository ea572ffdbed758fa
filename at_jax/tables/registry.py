"""The tables and their rows. ``TABLES`` is the registry."""

import dataclasses
import difflib
import fnmatch
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from at_jax import terms
from at_jax.errors import UserError, listed
from at_jax.tables import protocol
from at_jax.tables.paper import ACTIVATION, GRADIENT, MAPPINGS, PAPER, PaperResult, Source
from at_jax.training.config_files import load

__all__ = ["TABLES", "Row", "Table", "choose_rows"]

# Decay of beta where attention transfer is combined with distillation. The paper decays it and does not
# give the schedule. On held-out images constant, linear and cosine differed by at most 0.2 points at
# beta 100 and 6 epochs (results/cifar10_activation/validation.md); none was tried at 200 epochs.
_DECAY = {"transfer.decay": "cosine"}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table, trained once per seed.

    Attributes:
      student: name of the network.
      teacher: name of the network; set for every row, also where the method needs no teacher.
      method: as in a config.
      changes: other config keys (dotted) that the row sets, and their values.
      variant: distinguishes rows of the same method in their names; may be empty.
      condition: what rows of the same pair have in common, for their heading; may be empty.
      label: name of the method in the table.
      paper: the result in the paper; None if it reports none.
    """

    student: str
    teacher: str
    method: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    variant: str = ""
    condition: str = ""
    label: str = ""
    paper: PaperResult | None = None

    @property
    def name(self) -> str:
        """Name for ``--rows`` and for folders.

        >>> Row("wrn_16_1", "wrn_16_2", "at", variant="sum4").name
        'wrn_16_1-wrn_16_2-at-sum4'
        >>> Row("wrn_16_1", "wrn_16_2", "none").name
        'wrn_16_1-none'
        """
        teacher = [self.teacher] if terms.needs_teacher(self.method) else []
        return "-".join([self.student, *teacher, self.method, *filter(None, [self.variant])])

    @property
    def pair(self) -> str:
        """Student, teacher and condition, for headings: ``"wrn_16_1 <- wrn_16_2, 500 labels"``."""
        pair = f"{self.student} <- {self.teacher}"
        return f"{pair}, {self.condition}" if self.condition else pair


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: its rows and the config that they share.

    Attributes:
      title: one line.
      config: function that returns a new config, before the changes of a row.
      rows: in the order of the table. Rows of the same name (a student trained on labels only, listed
        with two teachers) are one run.
      teachers: name of a teacher to its result in the paper.
      paper_epochs: number of epochs in the paper; 0 if the paper has no such table or does not state it.
      source: of the results that are called the paper's here.
    """

    title: str
    config: Callable[[], ml_collections.ConfigDict]
    rows: tuple[Row, ...]
    teachers: Mapping[str, PaperResult] = dataclasses.field(default_factory=dict)
    paper_epochs: int = 0
    source: Source = PAPER


def choose_rows(table: Table, patterns: Sequence[str]) -> tuple[Row, ...]:
    """Select rows by shell patterns of their names; all rows if there are no patterns.

    Raises:
      UserError: for a pattern that matches no row.
    """
    names = list(dict.fromkeys(row.name for row in table.rows))
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            close = difflib.get_close_matches(pattern, names, n=1)
            fix = f"did you mean {close[0]}?" if close else "--list prints all rows"
            raise UserError(
                f"--rows must match rows of the table ({listed(names)}), got {pattern!r}: {fix}"
            )
    chosen = [
        row
        for row in table.rows
        if not patterns or any(fnmatch.fnmatchcase(row.name, pattern) for pattern in patterns)
    ]
    # A student trained on labels only is listed with several teachers: keep those of other chosen rows.
    wanted = {row.pair for row in chosen if terms.needs_teacher(row.method)}
    pairs: dict[str, set[str]] = {}
    for row in chosen:
        pairs.setdefault(row.name, set()).add(row.pair)
    return tuple(row for row in chosen if row.pair in wanted or not pairs[row.name] & wanted)


def _activation() -> Table:
    rows = []
    for (student, teacher), results in ACTIVATION.items():
        for method in ("none", "at", "f_actt", "kd", "at+kd"):
            changes = _DECAY if method == "at+kd" else {}
            rows.append(Row(student, teacher, method, changes, label=method, paper=results[method]))
    return Table(
        "Activation-based attention transfer (table 1 of arXiv:1612.03928)",
        functools.partial(load, "cifar10"),
        tuple(rows),
        {teacher: results["teacher"] for (_, teacher), results in ACTIVATION.items()},
        paper_epochs=200,
    )


def _mappings() -> Table:
    student, teacher = pair = ("wrn_16_1", "wrn_16_2")
    results = ACTIVATION[pair]
    rows = [Row(student, teacher, "none", label="none", paper=results["none"])]
    for (kind, p), result in MAPPINGS.items():
        changes = {"at.kind": kind, "at.p": p}
        variant, label = f"{kind}{p:g}", f"at, F_{kind}^{p:g}"
        rows.append(Row(student, teacher, "at", changes, variant, "", label, result))
    return Table(
        "Mappings from activations to attention (table 2 of arXiv:1612.03928)",
        functools.partial(load, "cifar10"),
        tuple(rows),
        {teacher: results["teacher"]},
        paper_epochs=200,
    )


def _gradient() -> Table:
    return Table(
        "Gradient-based attention transfer (table 3 of arXiv:1612.03928)",
        functools.partial(load, "cifar10_gradient"),
        tuple(
            Row("nin_thin", "nin_wide", method, label=method, paper=result)
            for method, result in GRADIENT.items()
        ),
    )


_FEW_LABELS = (500, 1000, 4000)


def _few_labels() -> Table:
    rows = []
    for labels in _FEW_LABELS:
        subset = {"data.train_examples": labels}
        for method in (
            "none", "at", "kd", "at+kd", "jacobian", "gradient_at", "gradient_at+kd",
        ):  # fmt: skip
            name, condition = f"{labels}_labels", f"{labels} labels"
            changes = subset | (_DECAY if method == "at+kd" else {})
            rows.append(Row("wrn_16_1", "wrn_16_2", method, changes, name, condition, method))
    return Table(
        "Few labels: the teacher is trained on all of them",
        functools.partial(load, "cifar10_few_labels"),
        tuple(rows),
    )


def _digits() -> Table:
    return Table(
        "Handwritten digits, 200 labels",
        functools.partial(load, "digits"),
        tuple(
            Row("wrn_10_1", "wrn_16_2", method, label=method)
            for method in ("none", "at", "kd", "at+kd", "gradient_at", "gradient_at+kd")
        ),
    )


def _cifar100_protocol() -> Table:
    rows = []
    for (student, teacher), results in protocol.RESULTS.items():
        points = protocol.POINTS.get(student)
        for method in protocol.METHODS:
            changes = {"transfer.points": points} if points and method == "at" else {}
            rows.append(Row(student, teacher, method, changes, label=method, paper=results[method]))
    return Table(
        "The CIFAR-100 protocol of RepDistiller and mdistiller",
        functools.partial(load, "cifar100_protocol"),
        tuple(rows),
        protocol.TEACHERS,
        paper_epochs=240,
        source=protocol.SOURCE,
    )


TABLES: dict[str, Callable[[], Table]] = {
    "cifar10_activation": _activation,
    "cifar10_mappings": _mappings,
    "cifar10_gradient": _gradient,
    "cifar10_few_labels": _few_labels,
    "cifar100_protocol": _cifar100_protocol,
    "digits": _digits,
}
