"""From a table and what was asked of it to the runs that it takes."""

import ast
import dataclasses
import difflib
import fnmatch
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import ml_collections

from at_jax import methods, settings
from at_jax.run_directory import flatten
from at_jax.tables.studies import Row, Table
from configs import base

# Of the seeds, the teacher's: it is one run that all students learn from.
TEACHER_SEED = 0
# What the rows themselves say.
_OF_THE_ROWS = ("student", "method", "seed", "teacher.model", "teacher.checkpoint")
# The folder of the runs, below the table's.
RUNS = "runs"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a table.

    Attributes:
      name: the folder below the table's.
      config: of the run.
      workdir: its folder.
      row: of the table; None for a teacher that is in no row.
    """

    name: str
    config: ml_collections.ConfigDict
    workdir: pathlib.Path
    row: Row | None

    @property
    def seed(self) -> int:
        """0, 1, ...: the place among the runs of its row."""
        return self.config.seed

    def value(self, key: str) -> Any:
        """What the run's config says for a dotted key."""
        return flatten(self.config.to_dict())[key]

    @property
    def needs(self) -> pathlib.Path | None:
        """The workdir of the teacher that has to be finished before."""
        checkpoint = self.config.teacher.checkpoint
        return pathlib.Path(checkpoint) if checkpoint else None


def scaled(config: ml_collections.ConfigDict, epochs: int) -> ml_collections.ConfigDict:
    """A config whose schedules are compressed to other epochs, in proportion.

    Args:
      config: is left as it is.
      epochs: of the student; a teacher with epochs of its own is scaled alike.

    Returns:
      A config. Drops that fall on one epoch become one, and those on no epoch at all are left out:
      a schedule of whole epochs has no finer steps.

    >>> from configs import base
    >>> scaled(base.get_config(), 10).optimizer.drop_epochs
    (3, 6, 8)
    """
    result = ml_collections.ConfigDict(config.to_dict())
    factor = epochs / config.epochs

    def times(drops: Sequence[int], end: int) -> tuple[int, ...]:
        # Half an epoch goes up, whatever the parity: Python's round would send 2.5 to 2 and 3.5 to 4.
        moved = {int(drop * factor + 0.5) for drop in drops}
        return tuple(sorted(drop for drop in moved if 1 <= drop < end))

    result.epochs = epochs
    result.optimizer.drop_epochs = times(config.optimizer.drop_epochs, epochs)
    result.transfer.decay_epochs = times(config.transfer.decay_epochs, epochs)
    if config.teacher.epochs:
        result.teacher.epochs = max(1, int(config.teacher.epochs * factor + 0.5))
        result.teacher.drop_epochs = times(config.teacher.drop_epochs, result.teacher.epochs)
    return result


def common_config(
    table: Table, *, epochs: int = 0, source: str = "", changes: Iterable[str] = ()
) -> ml_collections.ConfigDict:
    """The config that all rows of a table share.

    Args:
      table: of studies.py.
      epochs: 0 for the table's own.
      source: a folder of images, or a TFDS name; empty for the table's own.
      changes: texts ``key=value``, keys of configs/base.py; they override the rest.

    Returns:
      The config, checked.

    Raises:
      ValueError: for an unknown key, or a value that cannot be.
    """
    config = table.config()
    config.runtime.figures = False  # a table has pictures of its own
    if source:
        is_folder = pathlib.Path(source).expanduser().is_dir()
        if not is_folder and ("/" in source.rstrip("/") and source.startswith(("/", ".", "~"))):
            raise ValueError(f"--data: there is no folder {source!r}: name one, or a TFDS data set")
        config.data.source = "folder" if is_folder else "tfds"
        config.data.data_dir = source if is_folder else ""
        config.data.name = "" if is_folder else source
    if epochs:
        config = scaled(config, epochs)
    apply_changes(config, changes)
    settings.check(config)
    return config


def apply_changes(config: ml_collections.ConfigDict, changes: Iterable[str]) -> None:
    """Set what texts ``key=value`` say.

    Raises:
      ValueError: for an unknown key, one that is the rows' to say, or a value of another type.
    """
    known = flatten(base.get_config().to_dict())
    known = {key: value for key, value in known.items() if key not in _OF_THE_ROWS}
    for text in changes:
        key, equals, value = text.partition("=")
        if not equals or key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "configs/base.py lists them"
            if key in _OF_THE_ROWS:
                hint = "that is said by the rows and --seeds"
            raise ValueError(f"--set: expected KEY=VALUE with a known key, got {text!r}; {hint}")
        try:
            value = value if isinstance(known[key], str) else ast.literal_eval(value)
            config.update_from_flattened_dict({key: value})
        except (TypeError, ValueError, SyntaxError) as error:
            raise ValueError(
                f"--set: {key} is of type {type(known[key]).__name__}, got {text!r}"
            ) from error


def choose_rows(table: Table, patterns: Sequence[str]) -> tuple[Row, ...]:
    """The rows whose names match any of some shell patterns; all of them without patterns.

    Raises:
      ValueError: for a pattern that matches none.
    """
    names = list(dict.fromkeys(row.name for row in table.rows))
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(
                f"--rows: expected names or patterns of {', '.join(names)}, got {pattern!r}"
            )
    chosen = [
        row
        for row in table.rows
        if not patterns or any(fnmatch.fnmatchcase(row.name, pattern) for pattern in patterns)
    ]
    # A student alone stands beside several teachers: those that other chosen rows learn from.
    wanted = {row.pair for row in chosen if methods.needs_teacher(row.method)}
    pairs: dict[str, set[str]] = {}
    for row in chosen:
        pairs.setdefault(row.name, set()).add(row.pair)
    return tuple(row for row in chosen if row.pair in wanted or not pairs[row.name] & wanted)


def cells_of(
    table: Table,
    rows: Sequence[Row],
    common: ml_collections.ConfigDict,
    seeds: int,
    out: pathlib.Path,
    changes: Sequence[str] = (),
) -> list[Cell]:
    """The runs of some rows: teachers first, then the seeds, one of every row before the next.

    A teacher that is itself a run of the table (a student alone, of the same config) is that run.

    Args:
      table: of studies.py.
      rows: those of its rows that were chosen.
      common: of :func:`common_config`.
      seeds: how many, from 0 on.
      out: the table's folder.
      changes: as for :func:`common_config`; they override what a row says.

    Returns:
      Cells of different names, each after the one that it needs.

    Raises:
      ValueError: if a row's config cannot be.
    """
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.name, row)
    rows = list(first.values())
    students = [
        Cell(f"{row.name}/seed{seed}", _config_of(row, common, seed, changes), out, row)
        for seed in range(seeds)
        for row in rows
    ]
    # Of all rows, chosen or not: where a teacher lives must not depend on the choice.
    alone = {}
    for row in table.rows:
        if row.method == "none":
            config = _config_of(row, common, TEACHER_SEED, changes)
            alone[_identity(config)] = Cell(f"{row.name}/seed{TEACHER_SEED}", config, out, row)
    teachers: dict[str, Cell] = {}
    for row in rows:
        if methods.needs_teacher(row.method) and row.teacher not in teachers:
            config = _teacher_config(row, common)
            fresh = Cell(f"teachers/{row.teacher}", config, out, None)
            teachers[row.teacher] = alone.get(_identity(config), fresh)
    cells = {cell.name: cell for cell in (*teachers.values(), *students)}
    for cell in cells.values():
        if methods.needs_teacher(cell.config.method):
            teacher = teachers[cell.row.teacher]
            cell.config.teacher.checkpoint = str(out / RUNS / teacher.name)
        settings.check(cell.config)
    return [dataclasses.replace(cell, workdir=out / RUNS / cell.name) for cell in cells.values()]


def _config_of(
    row: Row, common: ml_collections.ConfigDict, seed: int, changes: Sequence[str]
) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict(common.to_dict())
    config.student, config.method, config.seed = row.student, row.method, seed
    if methods.needs_teacher(row.method):
        # A student alone is one run, whichever teacher stands beside it, or learns from it.
        config.teacher.model = row.teacher
    config.update_from_flattened_dict(dict(row.changes))
    apply_changes(config, changes)
    return config


def _teacher_config(row: Row, common: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict(common.to_dict())
    config.teacher.model, config.method = row.teacher, row.method
    result = settings.teacher_config(config)
    result.seed = TEACHER_SEED
    return result


def _identity(config: ml_collections.ConfigDict) -> str:
    """Equal for configs that train the same network alone."""
    relevant = {k: v for k, v in config.to_dict().items() if k not in ("teacher", "runtime")}
    return repr(sorted(flatten(relevant).items()))
