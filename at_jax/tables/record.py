"""Reading table.json: what earlier commands trained in a folder, and with which settings."""

import math
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from at_jax.data.identity import Identity
from at_jax.errors import UserError
from at_jax.tables.changes import Change, parse
from at_jax.tables.plan import RUNS, RunSpec
from at_jax.tables.rows import Row
from at_jax.tables.search import Search
from at_jax.training.files import json_files, run_files

__all__ = ["GIVEN", "TABLE", "Record", "on_disk", "read"]

TABLE = "table.json"
# In the entry of a run whose teacher the user gave: the teacher's error. Its "teacher" is then a digest of
# weights, and otherwise the ID of a run of the table.
GIVEN = "teacher_test_error"

# Keys of an entry that the table, its figures and its list of hardware need.
_NUMBER = (int, float)
_TYPES: dict[str, Any] = {
    "seed": int, "test_error": _NUMBER, "best_test_error": (*_NUMBER, type(None)), "errors": list,
    "finished": str, "device": str, "versions": (dict, type(None)), "commit": (str, type(None)),
    "wall_seconds": _NUMBER, "trained_together": (int, type(None)),
}  # fmt: skip
# End of the name of a run, up to the largest number of seeds. Not a copy that a user made: seed0_backup.
_SEED = re.compile(r"/seed(0|[1-9]\d{0,2})$")
_Entry = dict[str, Any]


class Record(NamedTuple):
    """Content of a table.json.

    Attributes:
      title: of the table.
      label: name of the data set.
      settings: see :func:`at_jax.tables.shared_settings.of`.
      changes: values of ``--set``.
      options: of the command, see :func:`at_jax.tables.options.words`.
      images: identity of the data set; None before it was loaded.
      runs: name of a finished run, such as ``"wrn_16_1-none/seed0"``, to its entry.
      diverged: name of a trial whose loss became infinite or NaN to its entry.
      teachers: name and ID of a finished run that is a teacher to its entry.
      names: of all runs that the table lists, finished or not.
      labels: pair and label of the rows, in their order.
      trained: labels of rows with runs that ended.
      unfinished: labels of rows with runs that failed or are missing.
      search: None for a table that is not a search.
    """

    title: str
    label: str
    settings: Mapping[str, Any]
    changes: tuple[Change, ...]
    options: tuple[str, ...]
    images: Identity | None
    runs: Mapping[str, _Entry]
    diverged: Mapping[str, _Entry]
    teachers: Mapping[tuple[str, str | None], _Entry]
    names: frozenset[str]
    labels: tuple[tuple[str, str], ...]
    trained: frozenset[str]
    unfinished: frozenset[str]
    search: Search | None

    def entry(self, spec: RunSpec) -> _Entry | None:
        """Entry of a run; None if there is none, or if a folder of the run was begun: it counts then."""
        return None if run_files.has_config(spec.workdir) else self.runs.get(spec.name)


def read(path: pathlib.Path) -> Record | None:
    """Read a table.

    Args:
      path: of table.json.

    Returns:
      Its content; None if there is no file.

    Raises:
      UserError: if the file is damaged, or of a version that did not record the settings.
    """
    try:
        found = json_files.read(path)
        if "settings" not in found and "rows" in found:
            raise UserError(
                f"{path} must hold the settings of its runs, got a table of an older version: choose "
                "another --out, or delete the file, and the runs of this folder are listed again"
            )
        return _record(found)
    except FileNotFoundError:
        return None
    except UserError:
        raise
    except (json_files.Damaged, KeyError, TypeError, AttributeError, ValueError) as damaged:
        reason = f"it lacks {damaged}" if isinstance(damaged, KeyError) else str(damaged)
        raise UserError(
            f"{path} is damaged ({reason}): restore it, choose another --out, or delete the file"
        ) from damaged


def _record(found: Mapping[str, Any]) -> Record:
    rows, search, images = found["rows"], found.get("search"), found["images"]
    runs = {_name(row, seed): seed for row in rows for seed in row["seeds"]}
    teachers = {
        (each["name"], each["run"].get("run")): each["run"]
        for each in found["teachers"]
        if each["run"]
    }
    of_teachers = [(name, entry) for (name, _), entry in teachers.items()]
    # A run of a row may be a teacher too, and is then read from both places.
    for name, entry in [*runs.items(), *of_teachers]:
        _check_entry(name, entry)
    diverged = {_name(row, each): each for row in rows for each in row["diverged"]}
    open_ = [_name(row, each) for row in rows for each in row["failed"]]
    open_ += [_name(row, {"seed": seed}) for row in rows for seed in row["missing"]]
    return Record(
        title=found["title"],
        label=found["data"],
        # Without epochs it is damaged.
        settings={"epochs": found["settings"]["epochs"], **found["settings"]},
        changes=tuple(map(parse, found["changes"])),
        options=tuple(found["options"]),
        images=Identity.from_json(images) if images else None,
        runs=dict(of_teachers) | runs,
        diverged=diverged,
        teachers=teachers,
        names=frozenset([*runs, *diverged, *open_]),
        labels=tuple((row["pair"], row["label"]) for row in rows),
        trained=frozenset(row["label"] for row in rows if row["seeds"] or row["diverged"]),
        unfinished=frozenset(row["label"] for row in rows if row["failed"] or row["missing"]),
        search=Search(**search) if search else None,
    )


def _check_entry(name: str, entry: Mapping[str, Any]) -> None:
    if missing := _TYPES.keys() - entry.keys():
        raise json_files.Damaged(f"{name} lacks {', '.join(sorted(missing))}")
    for key, types in _TYPES.items():
        is_number = isinstance(entry[key], float)
        if not isinstance(entry[key], types) or (is_number and not math.isfinite(entry[key])):
            raise json_files.Damaged(f"{name} has {key} {entry[key]!r}")
    if GIVEN in entry:
        error, teacher = entry[GIVEN], entry.get("teacher")
        is_error = error is None or (isinstance(error, _NUMBER) and math.isfinite(error))
        if not is_error or not isinstance(teacher, str | None):
            raise json_files.Damaged(f"{name} has {GIVEN} {error!r} and teacher {teacher!r}")


def _name(row: Mapping[str, Any], seed: Mapping[str, Any]) -> str:
    name = f"{row['name']}/seed{seed['seed']}"
    if not _SEED.search(name):
        raise json_files.Damaged(f"{row['name']} has seed {seed['seed']!r}")
    return name


def on_disk(out: pathlib.Path, rows: Iterable[Row]) -> frozenset[str]:
    """Names of the runs that a folder holds, begun or finished.

    Args:
      out: folder of the table.
      rows: of the table.
    """
    found = [
        f"{name}/{path.parent.name}"
        for name in dict.fromkeys(row.name for row in rows)
        for path in (out / RUNS / name).glob(f"seed*/{run_files.CONFIG}")
    ]
    return frozenset(filter(_SEED.search, found))
