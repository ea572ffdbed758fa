"""What ``python -m at_jax.tables`` does, once its flags are read."""

import argparse
import dataclasses
import difflib
import json
import logging
import pathlib
from collections.abc import Sequence

import ml_collections

from at_jax import inputs, loop, run_directory, settings
from at_jax.report import say
from at_jax.tables import markdown, pictures, plan, summary
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
    if options.name not in TABLES:
        close = difflib.get_close_matches(options.name or "", TABLES, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"name a table, one of {', '.join(TABLES)}, got {options.name!r}{hint}")
    for flag in ("seeds", "together"):
        if getattr(options, flag) < 1:
            raise ValueError(f"--{flag} must be at least 1, got {getattr(options, flag)}")
    if options.epochs < 0:
        raise ValueError(f"--epochs must be at least 1, got {options.epochs}")
    table = TABLES[options.name]()
    out = pathlib.Path(options.out or f"runs/tables/{options.name}").expanduser()
    before = _read_plan(out / _PLAN)
    asked = {
        "table": options.name,
        "epochs": options.epochs,
        "data": options.data,
        "label": options.label,
        "changes": options.changes,
    }
    if options.merge:
        if before is None:
            raise ValueError(f"--merge: {out} holds no table: give the --out of one")
        asked = before
    elif before is not None and before != asked:
        differing = [
            f"{k}: {before[k]!r} there, {asked[k]!r} now" for k in asked if before[k] != asked[k]
        ]
        raise ValueError(
            f"{out} holds a table that was begun otherwise ({'; '.join(differing)}): choose another --out, "
            "or start it as before"
        )
    rows = plan.choose_rows(table, [row for row in options.rows.split(",") if row])
    changes = tuple(asked["changes"])
    common = plan.common_config(
        table, epochs=asked["epochs"], source=asked["data"], changes=changes
    )
    seeds = summary.found_seeds(table, out) if options.merge else options.seeds
    cells = plan.cells_of(table, rows, common, seeds, out, changes)
    mine = _shard(cells, options.shard)
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


def _read_plan(path: pathlib.Path) -> dict | None:
    return json.loads(path.read_text()) if path.exists() else None


def _shard(cells: list[Cell], text: str) -> list[Cell]:
    """The part of the cells that ``I/N`` names, with the teachers that it needs."""
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise ValueError(f"--shard must be I/N with 1 <= I <= N, got {text!r}: for example 1/4")
    needed = {cell.needs for cell in cells}
    students = [cell for cell in cells if cell.workdir not in needed]
    mine = students[int(index) - 1 :: int(count)]
    # A teacher is everybody's: who comes first trains it, and the others wait for it.
    wanted = {cell.needs for cell in mine}
    return [
        cell
        for cell in cells
        if cell in mine or cell.workdir in wanted or (cell.workdir in needed and index == "1")
    ]


def groups(cells: Sequence[Cell], size: int) -> list[list[Cell]]:
    """Cut cells into groups that one program can train: of one pair and one order of images.

    Students that learn from nobody go with those of the pair that they stand beside. Seeds have orders
    of their own, unless data.order_seed says otherwise: then the methods of a seed go together.

    Args:
      cells: students, no teachers.
      size: at most so many in a group.

    Returns:
      The groups, in the order of their first cells.
    """
    if size == 1:
        return [[cell] for cell in cells]
    alike: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        alike.setdefault((cell.row.pair, settings.order_seed(cell.config)), []).append(cell)
    return [
        members[start : start + size]
        for members in alike.values()
        for start in range(0, len(members), size)
    ]


def run(job: Job) -> int:
    """Train what is not finished, write the table; return the exit code."""
    logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax tells of every file it renames
    code = 0
    if job.train:
        try:
            run_cells(
                job.mine,
                groups=lambda cells: groups(cells, job.together),
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
    (job.out / "table.md").write_text(markdown.render(numbers))
    if draw:
        written = pictures.draw(numbers, job.out)
        say(f"{job.out / 'table.md'}, table.json{''.join(f', {path.name}' for path in written)}")
