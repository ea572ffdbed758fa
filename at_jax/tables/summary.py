"""Content of table.json: the results of a table as numbers, from which table.md and figures are made."""

import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

import ml_collections

from at_jax.tables.paper import PaperResult
from at_jax.tables.plan import RUNS, RunSpec
from at_jax.tables.recorded import Recorded
from at_jax.tables.registry import Row, Table
from at_jax.tables.runner import failure_of
from at_jax.training import collapse, identity, run_files
from at_jax.training.config import flatten

__all__ = ["found_seeds", "summarize"]

# End of the name of a teacher whose students are recorded, and which was trained again for others.
_EARLIER = " (earlier)"
# Entries of result.json that are copied for every seed.
_RESULT_KEYS = (
    "seed", "test_error", "best_test_error", "epochs", "commit", "finished", "versions", "device",
    "wall_seconds", "trained_together",
)  # fmt: skip


def summarize(
    table: Table,
    rows: Sequence[Row],
    specs: Sequence[RunSpec],
    common: ml_collections.ConfigDict,
    *,
    changes: Sequence[str] = (),
    label: str = "",
    recorded: Recorded | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Read the finished runs of a table.

    Args:
      table: from the registry.
      rows: rows to report.
      specs: all runs of the rows; those that are missing or failed are listed.
      common: config that all rows share.
      changes: values of ``--set``.
      label: name of the data set; empty for the name in the config.
      recorded: results of an earlier table.json, of runs that have no folder here.
      command: that trains what is missing.

    Returns:
      JSON with ``title``, ``data``, ``measured_on`` ("test" or "validation"), ``epochs``,
      ``schedule``, ``drop_epochs``, ``batch_size``, ``paper_epochs``, ``source`` (of the paper's results:
      name, label, statistic), ``changes``, ``command``, ``rows`` and ``teachers``. A row has its names,
      ``paper`` (error and status, or null), ``seeds`` (an object for each finished run), ``median``,
      ``mean``, ``lowest``, ``highest`` (null if no run is finished), ``failed`` and ``missing`` (seeds).
      Errors are in percent.

    Raises:
      UserError: if two runs were trained on different data.
    """
    identity.check_same_data([spec.workdir for spec in specs if _result(spec)])
    data, before = common.data, recorded or Recorded({})
    teachers = {spec.teacher_workdir for spec in specs}
    return {
        "title": table.title,
        "data": label or data.name or pathlib.PurePosixPath(data.data_dir).name or data.source,
        "measured_on": "validation" if data.validation_examples else "test",
        "epochs": common.epochs,
        "schedule": common.optimizer.schedule,
        "drop_epochs": list(common.optimizer.drop_epochs),
        "batch_size": common.batch_size,
        "paper_epochs": table.paper_epochs,
        "source": table.source._asdict(),
        "changes": list(changes),
        "command": command,
        "rows": [
            _row(row, [s for s in specs if s.row is not None and s.row.name == row.name], before)
            for row in rows
        ],
        "teachers": [
            teacher
            for spec in specs
            if spec.workdir in teachers
            for teacher in _teachers(spec, table.teachers.get(spec.config.student), before)
        ],
    }


def found_seeds(table: Table, out: pathlib.Path, recorded: Recorded) -> int:
    """Number of seeds, counted from 0, of which a folder holds or records a run of at least one row."""
    seeds = [
        int(path.parent.name.removeprefix("seed")) + 1
        for row in table.rows
        for path in (out / RUNS / row.name).glob(f"seed*/{run_files.CONFIG}")
    ]
    names = tuple(f"{row.name}/seed" for row in table.rows)
    seeds += [
        int(name.rpartition("seed")[2]) + 1 for name in recorded.runs if name.startswith(names)
    ]
    return max(seeds, default=0)


def _row(row: Row, specs: Sequence[RunSpec], recorded: Recorded) -> dict[str, Any]:
    entries = [_entry(spec) or recorded.entry(spec) for spec in specs]
    finished = [entry for entry in entries if entry]
    seeds = {seed["seed"] for seed in finished}
    # Read once: another process may be training the run again.
    failures = {spec.seed: failure_of(spec.workdir) for spec in specs if spec.seed not in seeds}
    errors = [seed["test_error"] for seed in finished]
    config = flatten(specs[0].config.to_dict()) if specs else {}
    return {
        "name": row.name,
        "pair": row.pair,
        "student": row.student,
        "teacher": row.teacher,
        "method": row.method,
        "label": row.label,
        # The values of the runs: --set overrides the changes of a row.
        "changes": {key: config[key] for key in row.changes if specs},
        "paper": _paper(row.paper),
        "seeds": finished,
        "median": statistics.median(errors) if errors else None,
        "mean": statistics.fmean(errors) if errors else None,
        "lowest": min(errors, default=None),
        "highest": max(errors, default=None),
        "failed": [{"seed": s, "reason": f["reason"]} for s, f in failures.items() if f],
        "missing": [seed for seed, failure in failures.items() if not failure],
    }


def _teachers(spec: RunSpec, paper: PaperResult | None, recorded: Recorded) -> list[dict[str, Any]]:
    """A teacher; and before it that of recorded seeds, if it has been trained again for others."""
    entry, before = _entry(spec), recorded.runs.get(spec.name)
    earlier = spec.name + _EARLIER
    runs: dict[str, Any] = {n: recorded.runs[n] for n in recorded.teachers if n == earlier}
    if entry and before and spec.name in recorded.teachers and _is_other(entry, before):
        runs[earlier] = before
    runs[spec.name] = entry or before
    fixed = {"teacher": spec.config.student, "paper": _paper(paper)}
    return [{"name": name, **fixed, "run": run} for name, run in runs.items()]


def _is_other(entry: dict[str, Any], before: dict[str, Any]) -> bool:
    return bool(entry["finished"] != before["finished"])


def _result(spec: RunSpec) -> dict[str, Any] | None:
    return run_files.read_result(spec.workdir)


def _entry(spec: RunSpec) -> dict[str, Any] | None:
    """The entry of a run in table.json; None if its folder holds no result."""
    if not (result := _result(spec)):
        return None
    lines = run_files.read_metrics(spec.workdir)
    return {key: result.get(key) for key in _RESULT_KEYS} | {
        "errors": [line["test_error"] for line in lines],
        **({collapse.KEY: True} if result.get(collapse.KEY) else {}),
    }


def _paper(result: PaperResult | None) -> dict[str, Any] | None:
    return result._asdict() if result else None
