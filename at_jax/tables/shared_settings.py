"""Settings that the runs of a table share: recorded in table.json, and compared with those of a command."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import ml_collections

from at_jax import terms
from at_jax.errors import UserError, listed
from at_jax.tables.changes import ROW_KEYS, Change
from at_jax.tables.record import Record
from at_jax.tables.rows import Table
from at_jax.training.config import flatten

__all__ = ["check", "differing", "of"]

# Keys that rows set, places (the identities of data and teacher are compared instead), and keys of the
# execution.
_NO_SETTINGS = {
    *ROW_KEYS, "teacher.checkpoint", "teacher.weights", "compare", "data.source", "data.name",
    "data.data_dir", "data.allow_changes", "data.skip_corrupt", "data.workers", "data.memory_limit_mb",
}  # fmt: skip


def of(table: Table, common: ml_collections.ConfigDict) -> dict[str, Any]:
    """Keys and values that the runs of a table share, and that decide their results.

    Args:
      table: of the registry, or of a config. The sections of terms that none of its methods has are left
        out.
      common: config that all rows share.
    """
    used = {part for row in table.rows for part in terms.parts(row.method)}
    unused = {"runtime", *(terms.TERMS.keys() - used)}
    return {
        key: value
        for key, value in flatten(common.to_dict()).items()
        if key not in _NO_SETTINGS and key.partition(".")[0] not in unused
    }


def differing(
    record: Record, table: Table, common: ml_collections.ConfigDict, changes: Iterable[Change]
) -> dict[str, str]:
    """Compare the settings of a table with those of a command.

    Args:
      record: of the table.
      table: of the registry, or of a config.
      common: config that all rows share now.
      changes: values of ``--set`` now, see :func:`at_jax.tables.changes.resolve`.

    Returns:
      ``KEY`` or ``LABEL:KEY`` of each setting that differs to a text with both values. Keys that one
      version of the library lacks are not compared, nor are changes of rows that have no run.
    """
    there: dict[str, Any] = {"title": record.title, **record.settings}
    now: dict[str, Any] = {"title": table.title, **of(table, common)}
    pairs = {key: (there[key], now[key]) for key in now if key in there}
    # By label and key: the order of the options does not matter.
    changed = [
        {(change.rows, change.key): change.value for change in each if change.rows}
        for each in (record.changes, changes)
    ]
    for label, key in sorted(changed[0].keys() | changed[1].keys()):
        if label in record.trained and key in pairs:
            values = [own.get((label, key), pairs[key][side]) for side, own in enumerate(changed)]
            pairs[f"{label}:{key}"] = (values[0], values[1])
    return {
        key: f"{key}: {before!r} there, {after!r} now"
        for key, (before, after) in pairs.items()
        if before != after
    }


def check(
    record: Record,
    path: pathlib.Path,
    table: Table,
    common: ml_collections.ConfigDict,
    changes: Sequence[Change],
    searched: Sequence[Change] = (),
) -> None:
    """Raise UserError if the runs of a table were trained with other settings than those of a command.

    Args:
      record: of the table.
      path: of its table.json.
      table: of the registry, or of a config.
      common: config that all rows share now.
      changes: values of ``--set`` now.
      searched: those of them that the search in the same folder chose.
    """
    if found := differing(record, table, common, changes):
        fix = "choose another --out, or give the same options"
        used = {change.name: change for change in changes}  # later ones override earlier ones
        if found.keys() <= {change.name for change in searched if used.get(change.name) == change}:
            own = " ".join(f"--set '{change}'" for change in searched)
            fix = f"for a table with the newly chosen values, use {own} and another --out"
        raise UserError(f"{path} holds results of other settings ({listed(found.values())}): {fix}")
