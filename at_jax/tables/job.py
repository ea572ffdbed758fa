"""A job: what one command of ``python -m at_jax.tables`` trains and writes."""

import argparse
import dataclasses
import difflib
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections

from at_jax import loop, paths, signals
from at_jax.errors import UserError
from at_jax.tables import markdown, plan, plots, sharding, summary
from at_jax.tables.plan import RunSpec
from at_jax.tables.registry import TABLES, Row, Table, choose_rows
from at_jax.tables.runner import failure_of, train_all
from at_jax.training import datasets, json_files, run_files, storage
from at_jax.training.checkpoints import check_can_save
from at_jax.training.config import settings_of
from at_jax.training.console import log

__all__ = ["Job", "from_options", "listing", "run", "write"]

# Options that the folder was started with; later commands must agree with them.
_PLAN = "plan.json"


@dataclasses.dataclass(frozen=True)
class Job:
    """The work of one command.

    Attributes:
      table: from the registry.
      rows: chosen rows of the table.
      common: config that all rows share.
      changes: values of ``--set``.
      specs: all runs of the rows.
      shard: the runs of this shard.
      out: folder of the table.
      label: name of the data set in the table.
      together: largest number of students in one program.
      train: False only writes the table.
    """

    table: Table
    rows: tuple[Row, ...]
    common: ml_collections.ConfigDict
    changes: tuple[str, ...]
    specs: list[RunSpec]
    shard: list[RunSpec]
    out: pathlib.Path
    label: str
    together: int
    train: bool


def listing() -> str:
    """Format all tables, their rows and the paper's results as text."""
    lines = []
    for name, make in TABLES.items():
        table = make()
        lines += [f"{name}: {table.title}"]
        for row in {row.name: row for row in table.rows}.values():
            paper = f"paper {row.paper.error:5.2f} ({row.paper.status})" if row.paper else ""
            lines.append(f"  {row.name:<34} {paper}".rstrip())
    return "\n".join(lines)


def from_options(options: argparse.Namespace) -> Job:
    """Check the options and plan the work, before anything trains.

    Args:
      options: parsed by ``__main__``.

    Returns:
      The job.

    Raises:
      UserError: for an invalid option, or a folder that holds another table.
    """
    _check_options(options)
    table = TABLES[options.name]()
    out = paths.reachable(options.out or f"runs/tables/{options.name}")
    _check_out(options, out)
    planned = _plan(options, out / _PLAN)
    changes = tuple(planned["changes"])
    patterns = [row for row in options.rows.split(",") if row]
    if options.merge:
        patterns = patterns or planned["rows"]
    rows = choose_rows(table, patterns)
    planned["rows"] = sorted({row.name for row in rows} | set(planned["rows"]))
    _check_changes(rows, changes)
    common = plan.common_config(
        table, epochs=planned["epochs"], source=planned["data"], changes=changes
    )
    seeds = summary.found_seeds(table, out) if options.merge else options.seeds
    specs = plan.expand(table, rows, common, seeds, out, changes)
    shard = sharding.shard(specs, options.shard, options.together)
    if not options.merge:
        for spec in specs:
            run_files.check(spec.workdir, spec.config.to_dict())
        if not all(run_files.read_result(spec.workdir) for spec in specs):
            datasets.load_dataset(
                settings_of(common).data
            )  # unreadable images would fail every run
        run_files.write_json(out / _PLAN, planned)
    return Job(
        table=table,
        rows=rows,
        common=common,
        changes=changes,
        specs=specs,
        shard=shard,
        out=out,
        label=planned["label"],
        together=options.together,
        train=not options.merge,
    )


def _check_options(options: argparse.Namespace) -> None:
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
    if options.epochs < 0:
        raise UserError(
            f"--epochs must be at least 1, got {options.epochs}: leave it out for the table's own"
        )


def _check_out(options: argparse.Namespace, out: pathlib.Path) -> None:
    if not options.merge:
        check_can_save(out)
    if paths.scheme(out) and options.shard != "1/1":
        raise UserError(
            f"--shard {options.shard}: shards need file locks, which cloud storage lacks, got --out {out}: "
            "choose a shared local --out, or leave --shard out"
        )


def _plan(options: argparse.Namespace, path: pathlib.Path) -> dict[str, Any]:
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
    # The label can change and rows can be added: neither affects the runs that exist.
    kept = {"label": "", "rows": []} | (before or {})
    kept = {"label": options.label or kept["label"], "rows": kept["rows"]}
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


def _check_changes(rows: Sequence[Row], changes: Sequence[str]) -> None:
    """Raise if --set would change the key that defines a variant, and so its name and its paper result."""
    keys = {change.partition("=")[0] for change in changes}
    for row in rows:
        if row.variant and (clash := sorted(keys & row.changes.keys())):
            raise UserError(
                f"--set {clash[0]}: row {row.name} is defined by {clash[0]}={row.changes[clash[0]]}: "
                "leave it out, or choose other rows with --rows"
            )


def run(job: Job) -> int:
    """Train the unfinished runs of the shard, and write the table.

    Returns:
      Exit code: 0; 1 if a run failed; 128 + its number after a signal.

    Raises:
      loop.StorageError: if the folder is full.
    """
    with storage.reported(job.out):
        return _run(job)


def _run(job: Job) -> int:
    logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax logs every file that it renames
    code = 0
    if job.train:
        try:
            train_all(
                job.shard,
                groups=lambda specs: sharding.resumable_groups(specs, job.together),
                after_group=lambda: write(job, draw=False),
            )
        except loop.Interrupted as stopped:
            log(f"{stopped}: {signals.command()}")
            code = stopped.exit_code
        except KeyboardInterrupt:
            log("Stopped without saving: run the same command to resume from the last checkpoint")
            code = 130
    write(job, draw=True)
    return code or int(any(failure_of(spec.workdir) for spec in job.shard))


def write(job: Job, *, draw: bool) -> None:
    """Write table.json and table.md of the finished runs; with `draw`, the figures too."""
    numbers = summary.summarize(
        job.table, job.rows, job.specs, job.common, changes=job.changes, label=job.label
    )
    run_files.write_json(job.out / "table.json", numbers, checked=False)
    run_files.write_text(job.out / "table.md", markdown.render(numbers))
    if draw:
        written = plots.draw(numbers, job.out)
        log(f"{job.out / 'table.md'}, table.json{''.join(f', {path.name}' for path in written)}")
