"""Options of the command: their checks, the folder that they name, and the words that repeat them."""

import argparse
import difflib
import glob
import pathlib
import shlex
from collections.abc import Callable, Iterable, Sequence

from at_jax import paths
from at_jax.errors import UserError, listed
from at_jax.tables import own
from at_jax.tables.changes import Change
from at_jax.tables.plan import RUNS, TEACHERS
from at_jax.tables.record import TABLE
from at_jax.tables.registry import TABLES
from at_jax.tables.rows import Row, Table
from at_jax.training.files.checkpoints import check_can_save

__all__ = [
    "SEARCH", "check", "check_out", "command", "folder", "name", "naming", "searched_folder", "table",
    "words",
]  # fmt: skip

# Largest number of seeds and of students in one program.
_MOST = 1000
# Folder of the search, in the folder of its table.
SEARCH = "search"
# Files of a table in addition to table.json.
_WRITTEN = ("table.md", "errors.png", "curves.png", "labels.png", "search.png")
_COMMITTED, _OWN = pathlib.Path("results"), pathlib.Path("runs/tables")


def check(options: argparse.Namespace, changes: Iterable[Change]) -> None:
    """Raise UserError for the first option, or change of ``--set``, that is not valid."""
    for flag in ("seeds", "together"):
        if not 1 <= (count := getattr(options, flag)) <= _MOST:
            raise UserError(
                f"--{flag} must be from 1 to {_MOST}, got {count}: for example --{flag} 4"
            )
    if options.search and options.searched:
        raise UserError(
            "--search tries values and --searched uses the chosen ones, got both: leave one out"
        )
    if options.epochs < 0:
        raise UserError(
            f"--epochs must be at least 1, got {options.epochs}: leave it out for the table's own"
        )
    if options.merge and any(each.key in TEACHERS for each in changes):
        raise UserError(
            "--merge trains nothing, got --set of a teacher: leave it out, and table.json tells which one"
        )
    if options.merge and options.rows:
        raise UserError(
            f"--merge takes all runs of the folder, got --rows {options.rows}: leave --rows out"
        )


def table(options: argparse.Namespace) -> Table:
    """The table that the options choose, by its name or with a config.

    Raises:
      UserError: for both, neither, an unknown name, or a config that cannot be loaded.
    """
    named = options.name
    if options.config and named:
        raise UserError(
            f"--config makes a table of its own, got also the table {named!r}: leave one of them out"
        )
    if options.config:
        return own.table(options.config, options.methods)
    if options.methods:
        raise UserError(
            f"--methods needs the --config that they are for, got {options.methods!r}: use --rows "
            "for the rows of a table"
        )
    if named not in TABLES:
        close = difflib.get_close_matches(named or "", TABLES, n=1)
        fix = f"did you mean {close[0]}?" if close else "--list prints their rows"
        got = repr(named) if named else "no name"
        raise UserError(
            f"name a table, one of {', '.join(TABLES)}, or give a --config, got {got}: {fix}"
        )
    return TABLES[named]()


def naming(options: argparse.Namespace, rows: Iterable[Row]) -> list[str]:
    """Options that choose a table with some rows, as :func:`table` reads them."""
    if not options.config:
        return [options.name]
    return [f"--config={options.config}", "--methods", ",".join(row.method for row in rows)]


def name(options: argparse.Namespace) -> str:
    """Name of the folder of a table."""
    return own.name_of(options.config) if options.config else options.name


def check_out(options: argparse.Namespace, out: pathlib.Path) -> None:
    """Raise UserError if the folder cannot be written, has files of others, or shards cannot share it."""
    if not options.merge:
        check_can_save(out)
    is_table = any((out / each).exists() for each in (TABLE, RUNS, SEARCH))
    if not is_table and (taken := [each for each in _WRITTEN if (out / each).exists()]):
        raise UserError(
            f"--out {out} holds no table, and files that one would replace ({listed(taken)}): choose a new "
            "folder, or move them away"
        )
    if paths.scheme(out) and options.shard != "1/1":
        raise UserError(
            f"--shard {options.shard}: shards need file locks, which cloud storage lacks, got --out {out}: "
            "choose a shared local --out, or leave --shard out"
        )


def searched_folder(options: argparse.Namespace) -> pathlib.Path:
    """Folder of a table with searched values, and of its search.

    Without ``--out`` a search is made in a folder of the user's own: trials of a committed one would count
    with its own. ``--searched`` uses the user's search, and without one the committed search of a clone.

    Args:
      options: of the command, with ``--search`` or ``--searched``.
    """
    if options.out:
        return paths.reachable(options.out)
    mine, committed = (root / f"{name(options)}_searched" for root in (_OWN, _COMMITTED))
    part = pathlib.Path(SEARCH, TABLE)
    is_committed = options.searched and (committed / part).is_file() and not (mine / part).is_file()
    return committed if is_committed else mine


def folder(options: argparse.Namespace, is_same: Callable[[pathlib.Path], bool]) -> pathlib.Path:
    """Folder of a table without a search.

    Args:
      options: of the command.
      is_same: whether a table.json was made with the settings of the command.

    Returns:
      ``--out``; without it the committed results of a clone that have the same settings, and one in
      ``runs/`` if there are none.
    """
    if options.out:
        return paths.reachable(options.out)
    mine = _OWN / name(options)
    if options.merge and (mine / TABLE).is_file():
        return mine
    if options.merge and not (options.epochs or options.changes):
        return _COMMITTED / name(options)
    committed = sorted(_COMMITTED.glob(f"{glob.escape(name(options))}*/{TABLE}"))
    return next((path.parent for path in committed if is_same(path)), mine)


def words(options: argparse.Namespace, changes: Iterable[Change]) -> list[str]:
    """Options that a command must repeat to continue a table, except its rows, seeds and tried values.

    Args:
      options: of the command. The places of --data, --out and the teacher, which differ from machine to
        machine, become DIR, OUT, RUN and FILE.
      changes: those of ``--set``.
    """
    found = ["--epochs", str(options.epochs)] if options.epochs else []
    found += ["--data", "DIR"] if options.data else []
    found += ["--searched"] if options.searched else []
    for each in changes:
        found += ["--set", f"{each.name}={TEACHERS.get(each.key, each.text)}"]
    found += ["--together", str(options.together)] if options.together > 1 else []
    return found + (["--out", "OUT"] if options.out else [])


def command(
    named: Iterable[str],
    repeated: Iterable[str],
    rows: Sequence[Row],
    chosen: Sequence[Row],
    seeds: int,
) -> str:
    """Command that trains some runs of a table.

    Args:
      named: see :func:`naming`.
      repeated: see :func:`words`.
      rows: all rows of the table.
      chosen: rows of the runs.
      seeds: number of seeds that includes theirs.

    >>> command(["digits"], ["--together", "4"], (), (), 3)
    'at-jax tables digits --seeds 3 --together 4'
    """
    names = list(dict.fromkeys(row.name for row in chosen))
    some = len(names) < len({row.name for row in rows})
    found = ["at-jax", "tables", *named, "--seeds", str(seeds)]
    return shlex.join([*found, *(["--rows", ",".join(names)] if some else []), *repeated])
