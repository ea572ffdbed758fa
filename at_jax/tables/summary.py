"""Content of table.json: the results of a table as numbers, from which table.md and figures are made."""

import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from at_jax import terms
from at_jax.tables import options, shared_settings, trials
from at_jax.tables.job import Job
from at_jax.tables.paper import PaperResult
from at_jax.tables.plan import RunSpec
from at_jax.tables.record import GIVEN
from at_jax.tables.rows import Row
from at_jax.tables.runner import DIVERGED, failure_of
from at_jax.training import collapse
from at_jax.training.config import flatten
from at_jax.training.files import identity, run_files

__all__ = ["summarize"]

# Entries of result.json that are copied for every seed.
_RESULT_KEYS = (
    "seed", "test_error", "best_test_error", "epochs", "commit", "finished", "versions", "device",
    "wall_seconds", "trained_together",
)  # fmt: skip
_Entry = dict[str, Any]


def summarize(job: Job) -> dict[str, Any]:
    """Read the finished runs of a table.

    Args:
      job: whose runs are read, from their folders and from its earlier table.json.

    Returns:
      JSON with ``title``, ``data``, ``measured_on`` ("test" or "validation"), ``epochs``, ``schedule``,
      ``drop_epochs``, ``batch_size``, ``paper_epochs``, ``source`` (of the paper's results: name, label,
      statistic), ``settings`` (see :func:`at_jax.tables.shared_settings.of`), ``images`` (identity of the
      data, or null), ``changes``, ``options`` and ``command`` (that trains the open runs), ``rows`` and
      ``teachers``; for a search also ``search``. A row has its names, ``paper`` (error and status, or
      null), ``seeds`` (an object for each finished run), ``median``, ``mean``, ``lowest``, ``highest``
      (null if no run is finished), ``failed``, ``diverged`` (in a search: trials whose loss became
      infinite or NaN) and ``missing`` (seeds). Errors are in percent.
    """
    common, data = job.common, job.common.data
    entries = {spec.name: _entry(job, spec) for spec in job.specs}
    rows = [_row(job, row, entries) for row in job.rows]
    result = {
        "title": job.table.title,
        "data": job.label or data.name or pathlib.PurePosixPath(data.data_dir).name or data.source,
        "measured_on": "validation" if data.validation_examples else "test",
        "epochs": common.epochs,
        "schedule": common.optimizer.schedule,
        "drop_epochs": list(common.optimizer.drop_epochs),
        "batch_size": common.batch_size,
        "paper_epochs": job.table.paper_epochs,
        "source": job.table.source._asdict(),
        "settings": shared_settings.of(job.table, common),
        "images": job.images.to_json() if job.images else None,
        # Those of `runtime` are in the options: they decide how a run is carried out, not its result.
        "changes": [str(each) for each in job.changes if not each.key.startswith("runtime.")],
        "options": list(job.options),
        "command": _command(job, rows),
        "rows": rows,
        "teachers": _teachers(job, entries),
    }
    if job.search:
        chosen = trials.chosen(result, job.search.space)
        result["search"] = {**job.search._asdict(), "chosen": chosen}
    return result


def _row(job: Job, row: Row, entries: Mapping[str, _Entry | None]) -> dict[str, Any]:
    specs = [spec for spec in job.specs if spec.row is not None and spec.row.name == row.name]
    finished = [entry for spec in specs if (entry := entries[spec.name])]
    failures = [_failure(job, spec) for spec in specs if not entries[spec.name]]
    # Only a search takes a run that diverged for a result.
    diverged = [each for each in failures if each and each["kind"] == DIVERGED and job.search]
    failed = [each for each in failures if each and each not in diverged]
    known = {each["seed"] for each in (*finished, *diverged, *failed)}
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
        "failed": [_shortened(each) for each in failed],
        "diverged": [_shortened(each) for each in diverged],
        "missing": [spec.seed for spec in specs if spec.seed not in known],
    }


def _failure(job: Job, spec: RunSpec) -> dict[str, Any] | None:
    """Seed, kind and reason of a run that failed; None for one that is missing."""
    if _has_other_images(job, spec):
        reason = "trained on other images than the rest of the table"
        return {"seed": spec.seed, "kind": "data", "reason": reason}
    if failure := failure_of(spec.workdir):
        return {"seed": spec.seed, "kind": failure["kind"], "reason": failure["reason"]}
    recorded = job.record.diverged.get(spec.name) if job.record else None
    return {**recorded, "kind": DIVERGED} if recorded else None


def _shortened(failure: Mapping[str, Any]) -> dict[str, Any]:
    """Without the advice of its reason, which names the folder of the run."""
    return {"seed": failure["seed"], "reason": failure["reason"].partition(";")[0]}


def _has_other_images(job: Job, spec: RunSpec) -> bool:
    images = identity.of_data(spec.workdir)
    return images is not None and job.images is not None and images != job.images


def _entry(job: Job, spec: RunSpec) -> _Entry | None:
    """The entry of a finished run: from its folder, or from the earlier table.json; None if it is open."""
    recorded = job.record.entry(spec) if job.record else None
    if recorded or not (result := run_files.read_result(spec.workdir)):
        return recorded
    if _has_other_images(job, spec):
        return None
    errors = {line["epoch"]: line["test_error"] for line in run_files.read_metrics(spec.workdir)}
    entry = {key: result.get(key) for key in _RESULT_KEYS} | {
        "run": identity.run_id(spec.workdir) or None,
        # By epoch: a line of metrics.jsonl may be lost.
        "errors": [errors.get(epoch) for epoch in range(1, result["epochs"] + 1)],
    }
    if spec.teacher_workdir:
        entry["teacher"] = identity.run_id(spec.teacher_workdir) or None
    elif terms.needs_teacher(spec.config.method):  # the user gave it
        entry["teacher"] = identity.of_teacher(spec.workdir)
        entry[GIVEN] = result.get("teacher_test_error")
    return entry | ({collapse.KEY: True} if result.get(collapse.KEY) else {})


def _teachers(job: Job, entries: Mapping[str, _Entry | None]) -> list[dict[str, Any]]:
    """The teachers of all students: those that were trained again for other seeds are several runs."""
    needed = {spec.teacher_workdir for spec in job.specs}
    result = []
    for spec in job.specs:
        if spec.workdir not in needed:
            continue
        students = [
            entries[each.name] for each in job.specs if each.teacher_workdir == spec.workdir
        ]
        runs = {}
        for student in filter(None, students):
            run = student.get("teacher")
            if job.record and (spec.name, run) in job.record.teachers:
                runs[run] = job.record.teachers[spec.name, run]
        if now := entries[spec.name]:
            runs[now.get("run")] = now
        paper = _paper(job.table.teachers.get(spec.config.student))
        fixed = {"name": spec.name, "teacher": spec.config.student, "paper": paper}
        result += [{**fixed, "run": entry} for entry in runs.values() or [None]]
    return result


def _command(job: Job, rows: Sequence[Mapping[str, Any]]) -> str:
    """Command that trains the open runs; if there are none, the one that trains all of them."""
    seeds = {
        row["name"]: [*row["missing"], *(failure["seed"] for failure in row["failed"])]
        for row in rows
    }
    if not any(seeds.values()):
        seeds = {row["name"]: [each["seed"] for each in row["seeds"]] for row in rows}
    # In a search, rows of the table that have trials.
    labels = {(row["pair"], row["label"]) for row in rows if seeds[row["name"]]}
    chosen = [row for row in job.every.rows if (row.pair, row.label) in labels]
    count = 1 + max((seed for found in seeds.values() for seed in found), default=0)
    return options.command(job.named, job.options, job.every.rows, chosen, count)


def _paper(result: PaperResult | None) -> dict[str, Any] | None:
    return result._asdict() if result else None
