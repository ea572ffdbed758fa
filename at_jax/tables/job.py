"""A job: what one command of ``python -m at_jax.tables`` trains and writes."""

import argparse
import dataclasses
import functools
import logging
import pathlib
from typing import Any

import ml_collections

from at_jax import loop, paths, signals
from at_jax.tables import changes as key_changes
from at_jax.tables import markdown, plan, plots, recorded, search, sharding, summary, trials
from at_jax.tables import options as table_options
from at_jax.tables.plan import RunSpec
from at_jax.tables.recorded import Recorded
from at_jax.tables.registry import TABLES, Row, Table, choose_rows
from at_jax.tables.runner import failure_of, train_all
from at_jax.training import datasets, run_files, storage
from at_jax.training.config import settings_of
from at_jax.training.console import log

__all__ = ["Job", "from_options", "listing", "run", "write"]


@dataclasses.dataclass(frozen=True)
class Job:
    """The work of one command.

    Attributes:
      table: from the registry.
      rows: chosen rows of the table, and recorded ones.
      common: config that all rows share.
      changes: values of ``--set``.
      specs: all runs of the rows, and those that table.json records without a folder.
      shard: the runs of this shard.
      out: folder of the table.
      label: name of the data set in the table.
      together: largest number of students in one program.
      train: False only writes the table.
      recorded: results of an earlier table.json.
      command: that trains what is missing.
      space: values that a search tries; empty for a table.
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
    recorded: Recorded
    command: str
    space: search.Space


def listing() -> str:
    """Format all tables, their rows and the paper's results as text."""
    lines = []
    for name, make in TABLES.items():
        table = make()
        lines += [f"{name}: {table.title}"]
        rows = {row.name: row for row in table.rows}
        width = max(34, *map(len, rows))
        for row in rows.values():
            found = row.paper
            text = f"{table.source.label} {found.error:5.2f} ({found.status})" if found else ""
            lines.append(f"  {row.name:<{width}} {text}".rstrip())
    return "\n".join(lines)


def from_options(options: argparse.Namespace) -> Job:
    """Check the options and plan the work, before anything trains.

    Args:
      options: parsed by the command.

    Returns:
      The job.

    Raises:
      UserError: for an invalid option, or a folder that holds another table.
    """
    table_options.check(options)
    table = TABLES[options.name]()
    out = _out(options, table)
    planned = table_options.merged_plan(options, out / table_options.PLAN)
    changes = tuple(planned["changes"])
    rows = _rows(options, table, planned, out)
    key_changes.check(rows, changes, table.rows)
    common = plan.common_config(
        table, epochs=planned["epochs"], source=planned["data"], changes=changes
    )
    space: search.Space = {}
    if options.search:
        space = search.tried(planned["search"], rows, out / table_options.TABLE)
        rate = common.optimizer.learning_rate
        table, space = search.table_of(table, rows, space, rate)
        rows = table.rows
    before = recorded.read(out / table_options.TABLE, table.title, common, changes)
    seeds = _seeds(options, summary.found_seeds(table, out, before))
    expand = functools.partial(plan.expand, table, common=common, out=out, changes=changes)
    specs = expand(rows, seeds=seeds)
    shard = sharding.shard(specs, options.shard, options.together)
    rows, specs = recorded.added(before, table, rows, specs, expand)
    if not options.merge:
        for spec in specs:
            run_files.check(spec.workdir, spec.config.to_dict())
        if not all(before.entry(s) or run_files.read_result(s.workdir) for s in specs):
            datasets.load_dataset(
                settings_of(common).data
            )  # unreadable images would fail every run
        run_files.write_json(out / table_options.PLAN, planned)
    return Job(
        table=table,
        rows=rows,
        common=common,
        changes=changes,
        specs=specs,
        shard=shard,
        out=out,
        label=planned["label"] or before.label,
        together=options.together,
        train=not options.merge,
        recorded=before,
        command=table_options.command_of(planned, seeds),
        space=space,
    )


def _out(options: argparse.Namespace, table: Table) -> pathlib.Path:
    """Folder of the table, or of its search; adds the changes of a search to the options."""
    out = paths.reachable(options.out or table_options.default_out(options))
    options.chosen = []
    if options.searched:
        options.chosen = trials.options_of(out / table_options.SEARCH / table_options.TABLE)
        options.changes = [*options.chosen, *options.changes]
    if options.search:
        out /= table_options.SEARCH
        options.changes = search.with_held_out(table, options.changes)
    table_options.check_out(options, out)
    return out


def _rows(
    options: argparse.Namespace, table: Table, planned: dict[str, Any], out: pathlib.Path
) -> tuple[Row, ...]:
    """Chosen rows, which are added to those of the plan."""
    patterns = [row for row in options.rows.split(",") if row]
    if options.merge:
        patterns = patterns or planned["rows"]
    elif options.search and patterns:
        # Their trials stay in the table. A clone has no plan.
        patterns += [*planned["rows"], *search.rows_of(table, out / table_options.TABLE)]
    rows = choose_rows(table, patterns)
    planned["rows"] = sorted({row.name for row in rows} | set(planned["rows"]))
    return rows


def _seeds(options: argparse.Namespace, found: int) -> int:
    """Number of seeds; in a search, trials that are added have as many as the others."""
    if options.merge:
        return found
    return max(options.seeds, found) if options.search else int(options.seeds)


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
                recorded=frozenset(s.name for s in job.specs if _is_recorded(job, s)),
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
    failures = [failure_of(spec.workdir) for spec in job.shard]
    return code or int(any(f and not (job.space and trials.diverged(f)) for f in failures))


def _is_recorded(job: Job, spec: RunSpec) -> bool:
    """Whether a run counts as done without a result in its folder."""
    if job.space and (
        spec.name in job.recorded.diverged or trials.diverged(failure_of(spec.workdir))
    ):
        return True
    return job.recorded.entry(spec) is not None


def write(job: Job, *, draw: bool) -> None:
    """Write table.json and table.md of the finished runs; with `draw`, the figures too."""
    numbers = summary.summarize(
        job.table,
        job.rows,
        job.specs,
        job.common,
        changes=job.changes,
        label=job.label,
        recorded=job.recorded,
        command=job.command,
    )
    if job.space:
        numbers = trials.complete(numbers, job.space, job.recorded.diverged)
    run_files.write_json(job.out / table_options.TABLE, numbers, checked=False)
    run_files.write_text(job.out / "table.md", markdown.render(numbers))
    if draw:
        written = [] if job.space else plots.draw(numbers, job.out)
        for label, best in numbers.get("search", {}).get("chosen", {}).items():
            log(f"{label}: {best['error']:.2f} % with {' '.join(best['options'])}")
        log(f"{job.out / 'table.md'}, table.json{''.join(f', {path.name}' for path in written)}")
