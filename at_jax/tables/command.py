"""What ``python -m at_jax.tables`` does, once its flags are read."""

import argparse
import dataclasses
import difflib
import json
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections

from at_jax import inputs, loop, run_directory
from at_jax.report import say
from at_jax.tables import division, markdown, pictures, plan, summary
from at_jax.tables.plan import Cell
from at_jax.tables.runner import failure_of, run_cells
from at_jax.tables.studies import TABLES, Row, Table

# What a folder was begun with; another start must agree with it.
_PLAN = "plan.json"


@dataclasses.dataclass(frozen=True)
class Job:
    """One start of the program.

    Attributes:
      table: chosen by name.
      rows: of it, those that were chosen.
      common: the config that all rows share.
      changes: what ``--set`` says.
      cells: all runs that the rows take.
      mine: those of this shard.
      out: the table's folder.
      label: what to call the data.
      together: at most so many students in one program.
      train: False only makes the table.
    """

    table: Table
    rows: tuple[Row, ...]
    common: ml_collections.ConfigDict
    changes: tuple[str, ...]
    cells: list[Cell]
    mine: list[Cell]
    out: pathlib.Path
    label: str
    together: int
    train: bool


def listing() -> str:
    """The tables, their rows and the paper's figures, as text."""
    lines = []
    for name, table in TABLES.items():
        table = table()
        lines += [f"{name}: {table.title}"]
        for row in {row.name: row for row in table.rows}.values():
            figure = f"paper {row.paper.error:5.2f} ({row.paper.status})" if row.paper else ""
            lines.append(f"  {row.name:<34} {figure}".rstrip())
    return "\n".join(lines)


def job(options: argparse.Namespace) -> Job:
    """Check what was asked for, before anything trains.

    Args:
      options: as ``__main__`` parses them.

    Returns:
      What to do.

    Raises:
      ValueError: saying what to change.
    """
    _check_flags(options)
    table = TABLES[options.name]()
    out = pathlib.Path(options.out or f"runs/tables/{options.name}").expanduser()
    asked = _plan(options, out / _PLAN)
    changes = tuple(asked["changes"])
    patterns = [row for row in options.rows.split(",") if row]
    if options.merge:
        patterns = patterns or asked["rows"]
    rows = plan.choose_rows(table, patterns)
    asked["rows"] = sorted({row.name for row in rows} | set(asked["rows"]))
    _check_changes(rows, changes)
    common = plan.common_config(
        table, epochs=asked["epochs"], source=asked["data"], changes=changes
    )
    seeds = summary.found_seeds(table, out) if options.merge else options.seeds
    cells = plan.cells_of(table, rows, common, seeds, out, changes)
    mine = division.shard(cells, options.shard, options.together)
    if not options.merge:
        for cell in cells:
            run_directory.check(cell.workdir, cell.config.to_dict())
        if not all(run_directory.read_result(cell.workdir) for cell in cells):
            inputs.load_data(common)  # images that cannot be read would fail every cell
        run_directory.write_json(out / _PLAN, asked)
    return Job(
        table=table,
        rows=rows,
        common=common,
        changes=changes,
        cells=cells,
        mine=mine,
        out=out,
        label=asked["label"],
        together=options.together,
        train=not options.merge,
    )


def _check_flags(options: argparse.Namespace) -> None:
    if options.name not in TABLES:
        close = difflib.get_close_matches(options.name or "", TABLES, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"name a table, one of {', '.join(TABLES)}, got {options.name!r}{hint}")
    for flag in ("seeds", "together"):
        if getattr(options, flag) < 1:
            raise ValueError(f"--{flag} must be at least 1, got {getattr(options, flag)}")
    if options.epochs < 0:
        raise ValueError(f"--epochs must be at least 1, got {options.epochs}")


def _plan(options: argparse.Namespace, path: pathlib.Path) -> dict[str, Any]:
    """What the folder's runs have in common: asked for now, or, to merge, at its first start."""
    before = json.loads(path.read_text()) if path.exists() else None
    if options.merge and before is None:
        raise ValueError(f"--merge: {path.parent} holds no table: give the --out of one")
    asked = {
        "table": options.name,
        "epochs": options.epochs,
        "data": options.data,
        "changes": options.changes,
    }
    # No part of the runs: a label may be given later, and rows added; both stay.
    kept = {"label": "", "rows": []} | (before or {})
    kept = {"label": options.label or kept["label"], "rows": kept["rows"]}
    compared = (
        ("table",) if options.merge else tuple(asked)
    )  # to merge, the rest is taken from there
    differing = [
        f"{key}: {before[key]!r} there, {asked[key]!r} now"
        for key in compared
        if before is not None and before[key] != asked[key]
    ]
    if differing:
        raise ValueError(
            f"{path.parent} holds a table that was begun otherwise ({'; '.join(differing)}): choose "
            "another --out, or start it as before"
        )
    return (before if options.merge else asked) | kept


def _check_changes(rows: Sequence[Row], changes: Sequence[str]) -> None:
    """A row that is one of several variants must stay what its name and the paper's figure say."""
    keys = {change.partition("=")[0] for change in changes}
    for row in rows:
        if row.variant and (clash := sorted(keys & row.changes.keys())):
            raise ValueError(
                f"--set {clash[0]}: row {row.name} is the one with {clash[0]}={row.changes[clash[0]]}: "
                "leave it out, or choose other rows with --rows"
            )


def run(job: Job) -> int:
    """Train what is not finished, write the table; return the exit code."""
    logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax tells of every file it renames
    code = 0
    if job.train:
        try:
            run_cells(
                job.mine,
                groups=lambda cells: division.groups_to_resume(cells, job.together),
                after=lambda: write(job, draw=False),
            )
        except loop.Interrupted as message:
            say(str(message))
            code = 130
        except KeyboardInterrupt:
            say("Stopped at once: the same command goes on from what was saved")
            code = 130
    write(job, draw=True)
    if not code and any(failure_of(cell.workdir) for cell in job.mine):
        code = 1
    return code


def write(job: Job, *, draw: bool) -> None:
    """Write table.json and table.md of what is finished by now; with `draw`, the pictures too."""
    numbers = summary.summarise(
        job.table, job.rows, job.cells, job.common, changes=job.changes, label=job.label
    )
    run_directory.write_json(job.out / "table.json", numbers)
    run_directory.write_text(job.out / "table.md", markdown.render(numbers))
    if draw:
        written = pictures.draw(numbers, job.out)
        say(f"{job.out / 'table.md'}, table.json{''.join(f', {path.name}' for path in written)}")
