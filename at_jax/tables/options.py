"""Options of the command, checked before anything is planned, and what a folder keeps of them."""

import argparse
import difflib
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from at_jax import paths
from at_jax.errors import UserError
from at_jax.tables.registry import TABLES
from at_jax.training import json_files
from at_jax.training.checkpoints import check_can_save

__all__ = [
    "PLAN", "SEARCH", "TABLE", "check", "check_out", "command_of", "default_out", "merged_plan",
]  # fmt: skip

# Options that a folder was started with; later commands must agree with them.
PLAN = "plan.json"
TABLE = "table.json"
# Folder of the search, in the folder of its table.
SEARCH = "search"


def default_out(options: argparse.Namespace) -> pathlib.Path:
    """Folder of a table without ``--out``: of the committed results of a clone, or one in runs/.

    A search and the table with the values that it chose have a folder of their own: their settings are
    not those of the table. A search never adds to a committed one, whose trials would count with its own.

    Args:
      options: of the command.
    """
    name = options.name + ("_searched" if options.search or options.searched else "")
    committed, own = pathlib.Path("results", name), pathlib.Path("runs/tables", name)
    if options.search:
        return own
    part = pathlib.Path(SEARCH, TABLE) if options.searched else TABLE
    # The user's own search comes before a committed one.
    mine = options.searched and (own / part).is_file()
    return committed if (committed / part).is_file() and not mine else own


def command_of(planned: Mapping[str, Any], seeds: int) -> str:
    """Command that trains the open runs; the place of the data differs from machine to machine."""
    words = ["at-jax", "tables", planned["table"], "--seeds", str(seeds)]
    words += ["--epochs", str(planned["epochs"])] if planned["epochs"] else []
    words += ["--data", "DIR"] if planned["data"] else []
    words += ["--rows", ",".join(planned["rows"])] if planned["search"] else []
    words += [word for values in planned["search"] for word in ("--search", values)]
    words += ["--searched"] if planned["searched"] else []  # it decides the folder too
    own = [change for change in planned["changes"] if change not in planned["searched"]]
    words += [word for change in own for word in ("--set", change)]
    return shlex.join(words)


def check(options: argparse.Namespace) -> None:
    """Raise UserError for the first option that is not valid."""
    if options.name not in TABLES:
        close = difflib.get_close_matches(options.name or "", TABLES, n=1)
        fix = f"did you mean {close[0]}?" if close else "--list prints their rows"
        got = repr(options.name) if options.name else "no name"
        raise UserError(f"name a table, one of {', '.join(TABLES)}, got {got}: {fix}")
    for flag in ("seeds", "together"):
        if getattr(options, flag) < 1:
            raise UserError(
                f"--{flag} must be at least 1, got {getattr(options, flag)}: for example --{flag} 4"
            )
    if options.search and options.searched:
        raise UserError(
            "--search tries values and --searched sets those that it chose, got both: leave one out"
        )
    if options.epochs < 0:
        raise UserError(
            f"--epochs must be at least 1, got {options.epochs}: leave it out for the table's own"
        )


def check_out(options: argparse.Namespace, out: pathlib.Path) -> None:
    """Raise UserError if the folder cannot be written, or shards cannot share it."""
    if not options.merge:
        check_can_save(out)
    if paths.scheme(out) and options.shard != "1/1":
        raise UserError(
            f"--shard {options.shard}: shards need file locks, which cloud storage lacks, got --out {out}: "
            "choose a shared local --out, or leave --shard out"
        )


def merged_plan(options: argparse.Namespace, path: pathlib.Path) -> dict[str, Any]:
    """Options that all runs of a folder share: from the command line; for ``--merge``, from the folder.

    Raises:
      UserError: if the folder was started with other options.
    """
    before = _read_plan(path)
    if options.merge and before is None:
        raise UserError(f"--merge: {path.parent} holds no table: give the --out of a trained one")
    now = {
        "table": options.name,
        "epochs": options.epochs,
        "data": options.data,
        "changes": options.changes,
    }
    # The label can change, rows and values to try can be added: none affects the runs that exist.
    empty: dict[str, Any] = {"label": "", "rows": [], "search": [], "searched": []}
    kept = {key: (before or {}).get(key, value) for key, value in empty.items()}
    kept["searched"] = options.chosen or kept["searched"]
    kept["label"] = options.label or kept["label"]
    kept["search"] = [*kept["search"], *(s for s in options.search if s not in kept["search"])]
    compared = ("table",) if options.merge else tuple(now)
    differing = [
        f"{key}: {before[key]!r} there, {now[key]!r} now"
        for key in compared
        if before is not None and before[key] != now[key]
    ]
    if differing:
        raise UserError(
            f"{path.parent} holds a table with other options ({'; '.join(differing)}): choose another "
            "--out, or give the same options"
        )
    return (before if options.merge and before is not None else now) | kept


def _read_plan(path: pathlib.Path) -> dict[str, Any] | None:
    try:
        if not (plan := json_files.read(path)).keys() >= {"table", "epochs", "data", "changes"}:
            raise json_files.Damaged("it lacks keys")
    except FileNotFoundError:
        return None
    except json_files.Damaged as damaged:
        raise UserError(
            f"{path} is not readable as JSON ({damaged}): choose another --out, or delete the file"
        ) from damaged
    return plan
