"""The tables and their rows. ``TABLES`` is the registry."""

import difflib
import fnmatch
import functools
from collections.abc import Callable, Mapping, Sequence

from at_jax import terms
from at_jax.errors import UserError, listed
from at_jax.tables import protocol
from at_jax.tables.paper import ACTIVATION, GRADIENT, MAPPINGS
from at_jax.tables.rows import Row, Table
from at_jax.training.config_files import load

__all__ = ["TABLES", "choose_rows", "listing"]

# Decay of beta where attention transfer is combined with distillation. The paper decays it and does not
# give the schedule. On held-out images constant, linear and cosine differed by at most 0.2 points at
# beta 100 and 6 epochs (results/cifar10_activation/validation.md); none was tried at 200 epochs.
_DECAY = {"transfer.decay": "cosine"}


def choose_rows(table: Table, patterns: Sequence[str]) -> tuple[Row, ...]:
    """Select rows by shell patterns of their names or labels; all rows if there are no patterns.

    Raises:
      UserError: for a pattern that matches no row.
    """
    names = list(dict.fromkeys(row.name for row in table.rows))
    labels = list(dict.fromkeys(row.label for row in table.rows))
    for pattern in patterns:
        if not fnmatch.filter([*names, *labels], pattern):
            close = difflib.get_close_matches(pattern, [*names, *labels], n=1)
            fix = f"did you mean {close[0]}?" if close else "--list prints all rows"
            raise UserError(
                f"--rows must match rows of the table ({listed(names)}), got {pattern!r}: {fix}"
            )
    chosen = [
        row
        for row in table.rows
        if not patterns
        or any(
            fnmatch.fnmatchcase(name, pattern)
            for pattern in patterns
            for name in (row.name, row.label)
        )
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
            rows.append(Row(student, teacher, method, changes, paper=results[method]))
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
    rows = [Row(student, teacher, "none", paper=results["none"])]
    for (kind, p), result in MAPPINGS.items():
        changes = {"at.kind": kind, "at.p": p}
        variant, label = f"{kind}{p:g}", f"at, F_{kind}^{p:g}"
        rows.append(
            Row(student, teacher, "at", changes, variant=variant, label=label, paper=result)
        )
    return Table(
        "Mappings from activations to attention (table 2 of arXiv:1612.03928)",
        functools.partial(load, "cifar10"),
        tuple(rows),
        {teacher: results["teacher"]},
        paper_epochs=200,
    )


def _gradient() -> Table:
    pair = ("nin_thin", "nin_wide")
    return Table(
        "Gradient-based attention transfer (table 3 of arXiv:1612.03928)",
        functools.partial(load, "cifar10_gradient"),
        (
            *(Row(*pair, method, paper=result) for method, result in GRADIENT.items()),
            # Ours: a temperature at which the teacher's J does not vanish; a late begin, when the student
            # has begun to fit; and gradients of logits.
            Row(*pair, "gradient_at", {"gradient_at.temperature": 8.0}, "tempered"),
            Row(*pair, "gradient_at", {"gradient_at.begin_epoch": 67}, "late"),
            Row(*pair, "jacobian"),
            Row(*pair, "sobolev"),
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
            rows.append(Row("wrn_16_1", "wrn_16_2", method, changes, name, condition))
    return Table(
        "Few labels: the teacher is trained on all of them",
        functools.partial(load, "cifar10_few_labels"),
        tuple(rows),
    )


def _digits() -> Table:
    pair = ("wrn_10_1", "wrn_16_2")
    methods = (
        "none", "at", "f_actt", "kd", "at+kd", "flip_symmetry", "min_l2", "gradient_at",
        "gradient_at+kd", "jacobian", "jacobian+kd", "sobolev",
    )  # fmt: skip
    return Table(
        "Handwritten digits, 200 labels",
        functools.partial(load, "digits"),
        (
            *(Row(*pair, method) for method in methods),
            Row(*pair, "gradient_at", {"gradient_at.temperature": 1.0}, "t1"),
        ),
        held_out=500,
    )


TABLES: dict[str, Callable[[], Table]] = {
    "cifar10_activation": _activation,
    "cifar10_mappings": _mappings,
    "cifar10_gradient": _gradient,
    "cifar10_few_labels": _few_labels,
    "cifar100_protocol": protocol.table,
    "digits": _digits,
}


def listing(tables: Mapping[str, Table]) -> str:
    """Format tables, by their names, with their rows and the published results as text."""
    lines = []
    for name, table in tables.items():
        lines += [f"{name}: {table.title}"]
        rows = {row.name: row for row in table.rows}
        width = max(34, *map(len, rows))
        for row in rows.values():
            found = row.paper
            text = f"{table.source.label} {found.error:5.2f} ({found.status})" if found else ""
            lines.append(f"  {row.name:<{width}} {text}".rstrip())
    return "\n".join(lines)
