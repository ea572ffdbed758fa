"""Finished seeds in a committed table.json, which count as done without the folders of their runs."""

import pathlib
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_collections

from at_jax.errors import UserError
from at_jax.tables.plan import RunSpec
from at_jax.tables.registry import Row, Table, choose_rows
from at_jax.training import json_files, run_files

__all__ = ["Recorded", "added", "read"]


# What the table, its figures and its list of hardware need of an entry.
_KEYS = {
    "seed", "test_error", "best_test_error", "errors", "finished", "device", "versions", "commit",
    "wall_seconds", "trained_together",
}  # fmt: skip


class Recorded(NamedTuple):
    """Entries of a table.json.

    Attributes:
      runs: name of a run, such as ``"wrn_16_1-none/seed0"``, to its entry.
      teachers: names of those that are the teachers of other runs.
      label: name of the data set.
      diverged: name of a trial of a search to its entry; its loss became infinite or NaN.
    """

    runs: dict[str, dict[str, Any]]
    teachers: frozenset[str] = frozenset()
    label: str = ""
    diverged: Mapping[str, dict[str, Any]] = types.MappingProxyType({})

    def entry(self, spec: RunSpec) -> dict[str, Any] | None:
        """Entry of a run; None if there is none, or if a folder of the run was begun: it counts then."""
        return None if run_files.has_config(spec.workdir) else self.runs.get(spec.name)


def read(
    path: pathlib.Path,
    title: str,
    common: ml_collections.ConfigDict,
    changes: tuple[str, ...],
) -> Recorded:
    """Read the finished seeds of a table.

    Args:
      path: of table.json.
      title: of the table.
      common: config that all rows share now.
      changes: values of ``--set`` now.

    Returns:
      The entries; none if there is no file.

    Raises:
      UserError: if the file is damaged, or the seeds were trained with other settings.
    """
    try:
        found = json_files.read(path)
        entries, there = _entries(found), _settings(found)
    except FileNotFoundError:
        return Recorded({})
    except (json_files.Damaged, KeyError, TypeError, AttributeError) as damaged:
        raise UserError(
            f"{path} is damaged ({damaged}): restore it, choose another --out, or delete the file"
        ) from damaged
    now = {
        "title": title,
        "epochs": common.epochs,
        "schedule": common.optimizer.schedule,
        "drop_epochs": list(common.optimizer.drop_epochs),
        "batch_size": common.batch_size,
        "changes": _of_training(changes),
    }
    differing = [
        f"{key}: {there[key]!r} there, {now[key]!r} now" for key in now if there[key] != now[key]
    ]
    if differing:
        raise UserError(
            f"{path} holds results of other settings ({'; '.join(differing)}): choose another --out, or "
            "give the same options"
        )
    return entries


def added(
    before: Recorded,
    table: Table,
    rows: tuple[Row, ...],
    specs: list[RunSpec],
    expand: Callable[..., list[RunSpec]],
) -> tuple[tuple[Row, ...], list[RunSpec]]:
    """Add what an earlier table.json records to the rows and runs of a table.

    Otherwise a command for other rows or fewer seeds would remove finished runs from the file.

    Args:
      before: entries of the earlier table.json.
      table: from the registry.
      rows: chosen ones.
      specs: runs of the chosen rows.
      expand: from rows and ``seeds``, their number, to their runs.

    Returns:
      The rows, and their runs: all of the chosen rows, and of others those without a folder.
    """
    if not before.runs:
        return rows, specs
    names = {name.rpartition("/")[0] for name in before.runs}
    rows = choose_rows(table, [row.name for row in table.rows if row in rows or row.name in names])
    seeds = 1 + max(entry["seed"] for entry in before.runs.values())
    chosen = {spec.name for spec in specs}
    every = expand(rows, seeds=max([seeds, *(spec.seed + 1 for spec in specs)]))
    return rows, [spec for spec in every if spec.name in chosen or before.entry(spec)]


def _settings(found: Mapping[str, Any]) -> dict[str, Any]:
    same = {key: found[key] for key in ("title", "epochs", "drop_epochs", "batch_size")}
    same["schedule"] = found.get("schedule", "steps")  # tables of before had no other
    return same | {"changes": _of_training(found["changes"])}


def _entries(found: Mapping[str, Any]) -> Recorded:
    runs = {
        f"{row['name']}/seed{seed['seed']}": seed for row in found["rows"] for seed in row["seeds"]
    }
    teachers = {each["name"]: each["run"] for each in found["teachers"] if each["run"]}
    for name, entry in (teachers | runs).items():
        if missing := _KEYS - entry.keys():
            raise json_files.Damaged(f"{name} lacks {', '.join(sorted(missing))}")
    diverged = {
        f"{row['name']}/seed{each['seed']}": each
        for row in found["rows"]
        for each in row.get("diverged", ())
    }
    return Recorded(teachers | runs, frozenset(teachers), found["data"], diverged)


def _of_training(changes: Any) -> list[str]:
    """Changes without those that say only how a run is carried out."""
    return [change for change in changes if not change.startswith("runtime.")]
