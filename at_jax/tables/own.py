"""A table of the user's own networks and images: methods, with the networks and data of a config."""

import dataclasses
import pathlib

from at_jax import terms
from at_jax.errors import UserError
from at_jax.tables import record
from at_jax.tables.rows import Row, Table
from at_jax.training import config_files

__all__ = ["name_of", "table", "with_recorded"]


def name_of(text: str) -> str:
    """Name of the table of a config, for its folder.

    >>> name_of("folder:data=DIR,student=resnet_18"), name_of("studies/birds.py")
    ('folder_methods', 'birds_methods')
    """
    return f"{pathlib.PurePath(text.partition(':')[0]).stem}_methods"


def table(text: str, methods: str) -> Table:
    """The table of a config: a row for each method, with the config's student and teacher.

    Args:
      text: ``NAME[:PARTS]``, as ``at-jax train --config`` takes it.
      methods: separated by commas; empty for labels only and the methods of the config.

    Returns:
      The table. It has no held-out images of its own: a search uses those of the config.

    Raises:
      UserError: for a config that cannot be loaded, or a method that is unknown or named twice.
    """
    config = config_files.load_flag(text)
    student, teacher = config.student, config.teacher.model
    given = ("none", config.method, *config.compare)
    chosen = _methods(methods) if methods else dict.fromkeys(map(_spelled, given))
    return Table(
        f"Methods for {student} with teacher {teacher}",
        config.copy_and_resolve_references,
        tuple(Row(student, teacher, method) for method in chosen),
        held_out=config.data.validation_examples,
        has_fixed_rows=False,
    )


def with_recorded(table: Table, path: pathlib.Path) -> Table:
    """Add the methods of earlier commands: a row that was ever asked for stays in the table.

    Args:
      table: result of :func:`table`.
      path: of table.json, or of that of a search. It need not exist.

    Returns:
      The table with all rows, the earlier ones first.

    Raises:
      UserError: if the file is damaged.
    """
    before = record.read(path)
    # The folder of another table is refused later, with its settings.
    if before is None or not before.title.endswith(table.title):
        return table
    first = table.rows[0]
    there = {}
    for _, label in before.labels:
        try:
            there[_spelled(label)] = Row(first.student, first.teacher, label)
        except UserError as error:
            raise UserError(
                f"{path} is damaged (row {label!r} is no method): restore it, choose another --out, or "
                "delete the file"
            ) from error
    rows = there | {row.method: row for row in table.rows}
    return dataclasses.replace(table, rows=tuple(rows.values()))


def _methods(text: str) -> list[str]:
    methods = [_spelled(part.strip(), "--methods") for part in text.split(",") if part.strip()]
    if len(set(methods)) < len(methods) or not methods:
        raise UserError(
            f"--methods must name each method once, got {text!r}: for example --methods none,at,kd"
        )
    return methods


def _spelled(method: str, key: str = "method") -> str:
    """The method with its terms in the order of the tables of the paper."""
    terms.parts(method, key)  # raises for an unknown term
    return "+".join(terms.in_display_order(method)) or "none"
