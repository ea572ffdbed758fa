"""Work of one command of ``at-jax tables``, planned and checked before anything trains."""

import argparse
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import ml_collections

from at_jax.data.identity import Identity
from at_jax.errors import UserError
from at_jax.tables import changes as key_changes
from at_jax.tables import checks, own, plan, record, search, sharding, shared_settings, trials
from at_jax.tables import options as table_options
from at_jax.tables.changes import Change
from at_jax.tables.plan import RunSpec
from at_jax.tables.record import TABLE, Record
from at_jax.tables.registry import choose_rows
from at_jax.tables.rows import Row, Table
from at_jax.tables.search import Search
from at_jax.training.config import settings_of

__all__ = ["Job", "from_options"]


@dataclasses.dataclass(frozen=True)
class Job:
    """The work of one command.

    Attributes:
      named: options that choose the table.
      every: the table with all rows.
      table: its rows; in a search, those of the trials.
      rows: those that table.json lists.
      common: config that all rows share.
      changes: values of ``--set``, see :func:`at_jax.tables.changes.resolve`.
      specs: all runs that table.json lists, and their teachers.
      to_train: runs of this command and shard; empty for ``--merge``.
      out: folder of the table.
      label: name of the data set in the table; empty for that of the config.
      images: identity of the data; None if it is not known yet.
      together: largest number of students in one program.
      record: earlier table.json.
      options: of a command that continues the table.
      search: values that a search tries; None for a table.
    """

    named: tuple[str, ...]
    every: Table
    table: Table
    rows: tuple[Row, ...]
    common: ml_collections.ConfigDict
    changes: tuple[Change, ...]
    specs: list[RunSpec]
    to_train: list[RunSpec]
    out: pathlib.Path
    label: str
    images: Identity | None
    together: int
    record: Record | None
    options: tuple[str, ...]
    search: Search | None


class _Command(NamedTuple):
    """The options, read together with the folder that they name.

    Attributes:
      every: table with all rows that the options and the folder name.
      out: folder of the table.
      before: earlier table.json.
      changes: values of ``--set``, and those that the search chose.
      common: config that all rows share.
      searched: those of the changes that the search chose.
    """

    every: Table
    out: pathlib.Path
    before: Record | None
    changes: tuple[Change, ...]
    common: ml_collections.ConfigDict
    searched: tuple[Change, ...]


def from_options(options: argparse.Namespace) -> Job:
    """Check the options and plan the work. Reads files and writes none.

    Args:
      options: parsed by the command.

    Returns:
      The job.

    Raises:
      UserError: for an invalid option, or a folder that holds results of other settings or data.
    """
    asked = table_options.table(options)
    # After the file of --config, which may add terms, was loaded.
    given = tuple(map(key_changes.parse, options.changes))
    table_options.check(options, given)
    every, out, before, changes, common, searched = _read(options, given, asked)
    table, found = every, None
    patterns = [row.strip() for row in options.rows.split(",") if row.strip()]
    chosen = () if options.merge else choose_rows(every if patterns else asked, patterns)
    key_changes.check(chosen, changes)
    if options.search:
        table, found = _trials(options, every, chosen, common, before)
        chosen = table.rows
    if before:
        shared_settings.check(before, out / TABLE, table, common, changes, searched)
    listed = before.names if before else frozenset()
    there = record.on_disk(out, table.rows)
    expand = functools.partial(plan.expand, table, common=common, out=out, changes=changes)
    # Trials that are added have as many seeds as the others.
    seeds = max(options.seeds, _count(listed | there) if options.search else 0)
    mine = [] if options.merge else expand(chosen, seeds=seeds)
    to_train = sharding.shard(mine, options.shard, options.together)
    names = listed | {spec.name for spec in mine if spec.row in chosen}
    rows, specs = _listed(table, names, there, expand)
    left = [
        spec for spec in to_train if not checks.is_done(spec, before, is_search=found is not None)
    ]
    checks.check_listed(before, specs, out)
    images = checks.check_runs(options, settings_of(common), before, specs, left, out)
    words = [*(search.words(found) if found else ()), *table_options.words(options, given)]
    return Job(
        named=tuple(table_options.naming(options, every.rows)),
        every=every,
        table=table,
        rows=rows,
        common=common,
        changes=changes,
        specs=specs,
        to_train=to_train,
        out=out,
        label=options.label or (before.label if before else ""),
        images=images,
        together=options.together,
        record=before,
        # A command that trains nothing does not change how the table is continued.
        options=tuple(words) if left or before is None else before.options,
        search=found,
    )


def _read(options: argparse.Namespace, given: tuple[Change, ...], table: Table) -> _Command:
    """Read the options and the folder.

    Args:
      options: of the command.
      given: changes of ``--set``.
      table: that the options choose.
    """
    out: pathlib.Path | None = None
    changes = given
    searched: tuple[Change, ...] = ()
    if options.searched or options.search:
        out = table_options.searched_folder(options)
        out = out / table_options.SEARCH if options.search else out
    if options.config:
        out = out or table_options.folder(options, is_same=lambda _: False)
        table = own.with_recorded(table, out / TABLE)
    if options.searched and out:
        # A command may have fewer methods than the search.
        known = {row.label for row in table.rows}
        chosen = trials.options_of(out / table_options.SEARCH / TABLE)
        searched = tuple(each for each in chosen if each.rows in known)
        changes = (*searched, *given)
    elif options.search:
        changes = search.with_held_out(table, given)
    changes = key_changes.resolve(changes, table.rows)
    common = plan.common_config(table, epochs=options.epochs, source=options.data, changes=changes)
    if out is None:
        is_same = functools.partial(_is_same, table=table, common=common, changes=changes)
        out = table_options.folder(options, is_same)
    table_options.check_out(options, out)
    before = record.read(out / TABLE)
    if options.merge:
        if before is None:
            raise UserError(f"--merge: {out} holds no table: give the --out of a trained one")
        # Settings need not be repeated; those that are must be the table's.
        given = key_changes.resolve(given, table.rows)
        changes = tuple(dict.fromkeys((*before.changes, *given)))
        epochs = options.epochs or before.settings["epochs"]
        common = plan.common_config(table, epochs=epochs, changes=changes)
    return _Command(table, out, before, changes, common, searched)


def _is_same(
    path: pathlib.Path, table: Table, common: ml_collections.ConfigDict, changes: Iterable[Change]
) -> bool:
    try:
        found = record.read(path)
    except UserError:  # another table, whose damage does not matter here
        return False
    return found is not None and not shared_settings.differing(found, table, common, changes)


def _trials(
    options: argparse.Namespace,
    table: Table,
    chosen: Sequence[Row],
    common: ml_collections.ConfigDict,
    before: Record | None,
) -> tuple[Table, Search]:
    """The table of the trials: those of this command, and those that were made before."""
    known = before.labels if before else ()
    rows = [row for row in table.rows if row in chosen or (row.pair, row.label) in known]
    space = search.parse(options.search, table.rows if options.merge else rows)
    if options.merge:
        space = {}  # it adds no values
    found = search.merged(before.search if before else None, space, rows)
    return search.table_of(table, rows, found, common.optimizer.learning_rate)


def _listed(
    table: Table, asked: frozenset[str], there: frozenset[str], expand: Callable[..., list[RunSpec]]
) -> tuple[tuple[Row, ...], list[RunSpec]]:
    """Rows and runs of table.json: all that were ever asked for or are there, and their teachers."""
    names = asked | there
    specs = expand(_rows_of(table, names), seeds=_count(names))
    teachers = {spec.teacher_workdir for spec in specs if spec.name in names}
    # A teacher with the config of a row is no row of the table unless it was asked for.
    names -= {s.name for s in specs if s.workdir in teachers and s.name not in asked}
    listed = [spec for spec in specs if spec.name in names or spec.workdir in teachers]
    return _rows_of(table, names), listed


def _rows_of(table: Table, names: Iterable[str]) -> tuple[Row, ...]:
    rows = {name.rpartition("/")[0] for name in names}
    return choose_rows(table, [row.name for row in table.rows if row.name in rows])


def _count(names: Iterable[str]) -> int:
    """Number of seeds, from 0, that includes those of some runs."""
    return max((int(name.rpartition("/seed")[2]) + 1 for name in names), default=0)
