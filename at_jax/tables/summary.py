"""What the runs of a table came to, as numbers: what table.json holds and table.md prints."""

import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

import ml_collections

from at_jax import run_directory
from at_jax.tables.paper import Figure
from at_jax.tables.plan import RUNS, Cell
from at_jax.tables.runner import failure_of
from at_jax.tables.studies import Row, Table

_OF_A_SEED = (
    "seed",
    "test_error",
    "best_test_error",
    "epochs",
    "commit",
    "finished",
    "versions",
    "device",
    "wall_seconds",
    "trained_together",
)


def summarise(
    table: Table,
    rows: Sequence[Row],
    cells: Sequence[Cell],
    common: ml_collections.ConfigDict,
    *,
    changes: Sequence[str] = (),
    label: str = "",
) -> dict[str, Any]:
    """Read the finished runs of a table.

    Args:
      table: of studies.py.
      rows: those to report.
      cells: the runs there should be; what is missing or failed is named.
      common: the config that all share.
      changes: what was asked for beside the table's own config.
      label: what to call the data; empty for the name in the config.

    Returns:
      JSON: ``title``, ``data``, ``measured_on`` ("test" or "validation"), ``epochs``,
      ``drop_epochs``, ``batch_size``, ``paper_epochs``, ``changes``, ``rows`` and ``teachers``. A row
      has its names, ``paper`` (error and status, or null), ``seeds`` (a dict a finished run),
      ``median``, ``mean``, ``lowest``, ``highest`` (null where nothing is finished), ``failed`` and
      ``missing`` seeds.
    """
    return {
        "title": table.title,
        "data": label
        or common.data.name
        or pathlib.Path(common.data.data_dir).name
        or common.data.source,
        "measured_on": "validation" if common.data.validation_examples else "test",
        "epochs": common.epochs,
        "drop_epochs": list(common.optimizer.drop_epochs),
        "batch_size": common.batch_size,
        "paper_epochs": table.paper_epochs,
        "changes": list(changes),
        "rows": [_row(row, [c for c in cells if _is_of(c, row)]) for row in rows],
        "teachers": [
            _teacher(cell, table.teachers.get(cell.config.student)) for cell in _teachers(cells)
        ],
    }


def _is_of(cell: Cell, row: Row) -> bool:
    return cell.row is not None and cell.row.name == row.name


def _teachers(cells: Sequence[Cell]) -> list[Cell]:
    needed = {cell.needs for cell in cells}
    return [cell for cell in cells if cell.workdir in needed]


def _paper(figure: Figure | None) -> dict[str, Any] | None:
    return figure._asdict() if figure else None


def _seed(cell: Cell) -> dict[str, Any]:
    result = run_directory.read_result(cell.workdir)
    lines = run_directory.read_metrics(cell.workdir)
    return {key: result.get(key) for key in _OF_A_SEED} | {
        "errors": [line["test_error"] for line in lines]
    }


def _row(row: Row, cells: Sequence[Cell]) -> dict[str, Any]:
    done = [cell for cell in cells if run_directory.read_result(cell.workdir)]
    # Read once: another shard may be trying it again.
    failures = {cell.seed: failure_of(cell.workdir) for cell in cells if cell not in done}
    failed = {seed: failure for seed, failure in failures.items() if failure}
    seeds = [_seed(cell) for cell in done]
    errors = [seed["test_error"] for seed in seeds]
    return {
        "name": row.name,
        "pair": row.pair,
        "student": row.student,
        "teacher": row.teacher,
        "method": row.method,
        "label": row.label,
        # As they were trained: --set overrides what a row says.
        "changes": {key: cells[0].value(key) for key in row.changes if cells},
        "paper": _paper(row.paper),
        "seeds": seeds,
        "median": statistics.median(errors) if errors else None,
        "mean": statistics.fmean(errors) if errors else None,
        "lowest": min(errors, default=None),
        "highest": max(errors, default=None),
        "failed": [{"seed": seed, "reason": f["reason"]} for seed, f in failed.items()],
        "missing": [seed for seed in failures if seed not in failed],
    }


def _teacher(cell: Cell, figure: Figure | None) -> dict[str, Any]:
    return {
        "name": cell.name,
        "teacher": cell.config.student,
        "paper": _paper(figure),
        "run": _seed(cell) if run_directory.read_result(cell.workdir) else None,
    }


def found_seeds(table: Table, out: pathlib.Path) -> int:
    """How many seeds a folder of runs holds at least one row of, counted from 0."""
    seeds = [
        int(path.parent.name.removeprefix("seed")) + 1
        for row in table.rows
        for path in (out / RUNS / row.name).glob(f"seed*/{run_directory.CONFIG}")
    ]
    return max(seeds, default=0)
