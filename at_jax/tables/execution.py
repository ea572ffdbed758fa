"""Training and reporting of the runs that a command of ``at-jax tables`` has planned."""

import logging

from at_jax import loop, signals
from at_jax.errors import UserError, listed
from at_jax.tables import checks, markdown, plots, record, shared_settings, summary
from at_jax.tables.job import Job
from at_jax.tables.overview import overview
from at_jax.tables.record import TABLE
from at_jax.tables.runner import DIVERGED, failure_of, train_all
from at_jax.training.console import log
from at_jax.training.files import run_files, storage

__all__ = ["run", "write"]

_KEPT = "finished runs and checkpoints are kept"


def run(job: Job) -> int:
    """Train the unfinished runs, and write the table.

    Returns:
      Exit code: 0; 1 if a run failed; 128 + its number after a signal.

    Raises:
      loop.StorageError: if the folder is full.
    """
    logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax logs every file that it renames
    is_search = job.search is not None
    with storage.reported(job.out, kept=_KEPT):
        code = _train(job, is_search=is_search) if job.to_train else 0
        write(job, draw=True)
    listed_here = {spec.name for spec in job.specs}
    if others := record.on_disk(job.out, job.every.rows) - listed_here:
        log(
            f"Not in the table: {listed(sorted(others))}, which another command has begun: run one of the "
            "commands again when both are done"
        )
    if left := [
        spec.name
        for spec in job.to_train
        if not checks.is_done(spec, job.record, is_search=is_search)
    ]:
        log(f"Not finished: {listed(left)}: table.md has the command that trains them")
    failures = [failure_of(spec.workdir) for spec in job.to_train]
    return code or int(any(f and not (is_search and f["kind"] == DIVERGED) for f in failures))


def _train(job: Job, *, is_search: bool) -> int:
    """Train the runs; return the exit code of a signal, or 0."""
    _begin(job)
    recorded = frozenset(
        spec.name for spec in job.specs if checks.is_recorded(spec, job.record, is_search=is_search)
    )
    try:
        train_all(
            job.to_train,
            recorded=recorded,
            together=job.together,
            after_group=lambda: write(job, draw=False),
        )
    except loop.Interrupted as stopped:
        log(f"{stopped}: {signals.command()}")
        return stopped.exit_code
    except KeyboardInterrupt:
        log("Stopped without saving: run the same command to resume from the last checkpoint")
        return 130
    return 0


def _begin(job: Job) -> None:
    """Record the settings before the first run: later commands are compared with them."""
    # A command with other settings may have been started at the same time.
    if (now := record.read(job.out / TABLE)) is not None:
        shared_settings.check(now, job.out / TABLE, job.table, job.common, job.changes)
    try:
        write(job, draw=False)
    except OSError as error:
        storage.check_space(job.out, error, _KEPT)
        raise UserError(
            f"--out {job.out} cannot be written ({error.strerror}): choose another --out"
        ) from error


def write(job: Job, *, draw: bool) -> None:
    """Write table.json and table.md of the finished runs; with `draw`, the figures too."""
    numbers = summary.summarize(job)
    run_files.write_json(job.out / TABLE, numbers)
    run_files.write_text(job.out / "table.md", markdown.render(numbers))
    if draw:
        written = plots.draw(numbers, job.out)
        for label, best in numbers.get("search", {}).get("chosen", {}).items():
            log(f"{label}: {best['error']:.2f} % with {' '.join(best['options'])}")
        if "search" not in numbers and (text := overview(numbers)):
            log(text)
        log(f"{job.out / 'table.md'}, table.json{''.join(f', {path.name}' for path in written)}")
