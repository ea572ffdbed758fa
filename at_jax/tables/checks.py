"""Checks of the runs of a table, before anything trains."""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

from at_jax import paths, terms
from at_jax.data.identity import Identity
from at_jax.errors import UserError, listed, naming
from at_jax.tables.messages import naming_options
from at_jax.tables.plan import RunSpec, is_teacher_given
from at_jax.tables.record import GIVEN, TABLE, Record
from at_jax.tables.runner import DIVERGED, failure_of
from at_jax.training import dry_run
from at_jax.training.components import datasets
from at_jax.training.files import identity, run_files
from at_jax.training.settings import Settings

__all__ = ["check_listed", "check_runs", "is_done", "is_recorded"]


def check_runs(
    options: argparse.Namespace,
    settings: Settings,
    before: Record | None,
    specs: Sequence[RunSpec],
    left: Sequence[RunSpec],
    out: pathlib.Path,
) -> Identity | None:
    """Check that the runs of a folder have the command's configs and data, and that they can train.

    Args:
      options: of the command.
      settings: of the config that all rows share.
      before: earlier table.json.
      specs: all runs that the table lists.
      left: those that the command trains.
      out: folder of the table.

    Returns:
      Identity of the data; None if it is not known, because nothing is trained.

    Raises:
      UserError: naming the run, the key or the data that differ, or the value that cannot be trained.
    """
    with naming_options():
        for spec in specs:
            _check_config(spec, is_merge=options.merge)
        _check_teacher(options, settings, left, before)
        places = [(str(out / TABLE), before.images if before else None)]
        places += [(str(spec.workdir), identity.of_data(spec.workdir)) for spec in specs]
        if left or (options.data and not options.merge):
            # Unreadable images would fail every run.
            dataset = datasets.load_dataset(settings.data)
            places.append((options.data or dataset.name, dataset.identity))
        for spec in left:
            for path in (spec.workdir, *spec.workdir.parents):
                if out in path.parents and path.is_file():
                    raise UserError(f"{path} must be a directory, got a file: move it away")
        given = None
        for spec in {_kind(spec): spec for spec in left}.values():
            run = dry_run.check(spec.config, trains_teacher=spec.teacher_workdir is not None)
            if run.teacher is not None and spec.teacher_workdir is None:
                given = run.teacher.variables
        _check_same_teacher(specs, given, before)
    identity.check_same_data(places)
    return next((images for _, images in places if images is not None), None)


def _kind(spec: RunSpec) -> tuple[Any, ...]:
    """Key that is equal for runs that differ only in seeds and float values: one of them is checked."""
    changes = spec.row.changes.items() if spec.row else ()
    # A warm-up is a float too, and may be longer than the run.
    others = tuple(
        (key, repr(value))
        for key, value in changes
        if not isinstance(value, float) or key.endswith("epochs")
    )
    return spec.config.student, spec.config.method, spec.config.teacher.model, others


def is_recorded(spec: RunSpec, before: Record | None, *, is_search: bool) -> bool:
    """Whether a run counts as finished without a result in its folder.

    Args:
      spec: the run.
      before: earlier table.json.
      is_search: a trial whose loss became infinite or NaN counts.
    """
    failure = failure_of(spec.workdir)
    if is_search and failure and failure["kind"] == DIVERGED:
        return True
    return before is not None and (spec.name in before.diverged or before.entry(spec) is not None)


def is_done(spec: RunSpec, before: Record | None, *, is_search: bool) -> bool:
    """Whether a run is finished, in its folder or in the earlier table.json; see :func:`is_recorded`."""
    recorded = is_recorded(spec, before, is_search=is_search)
    return recorded or run_files.read_result(spec.workdir) is not None


def check_listed(before: Record | None, specs: Sequence[RunSpec], out: pathlib.Path) -> None:
    """Raise UserError if results of table.json have no place in the table that would replace it."""
    names = {spec.name for spec in specs}
    recorded = [*before.diverged, *before.runs] if before else []
    teachers = {name for name, _ in before.teachers} if before else set()
    if lost := [name for name in recorded if name not in names and name not in teachers]:
        raise UserError(
            f"{out / TABLE} holds results that this table has no row for ({listed(lost)}): give the same "
            "keys to --search, or choose another --out"
        )


def _check_teacher(
    options: argparse.Namespace,
    settings: Settings,
    left: Sequence[RunSpec],
    before: Record | None,
) -> None:
    """Raise UserError unless the teacher, given or trained, suits the rows and the earlier runs."""
    is_given = is_teacher_given(settings)
    earlier = [name for name, entry in before.runs.items() if GIVEN in entry] if before else []
    if earlier and not is_given:
        raise UserError(
            f"the runs in table.json, such as {earlier[0]}, have a teacher that was given: give it again "
            "with --set teacher.checkpoint or --set teacher.weights, or choose another --out"
        )
    if is_given and before and before.teachers:
        raise UserError(
            "the runs in table.json have a teacher that the table trained, got --set teacher.checkpoint or "
            "teacher.weights: leave it out, or choose another --out"
        )
    rows = [spec.row for spec in left if spec.row and terms.needs_teacher(spec.row.method)]
    if not (rows and (workdir := settings.teacher.checkpoint)):
        return
    with naming("teacher.checkpoint", workdir):
        network = run_files.read_config(paths.reachable(workdir))["student"]
    for row in rows:
        if network != row.teacher:
            fix = f"teacher={network} to --config" if options.config else "rows of it to --rows"
            raise UserError(
                f"teacher.checkpoint={workdir} must be a run of {row.teacher}, the teacher of row "
                f"{row.name}, got {network}: choose another run, or give {fix}"
            )


def _check_same_teacher(specs: Sequence[RunSpec], given: Any, before: Record | None) -> None:
    """Raise UserError if students of teachers that were given have different ones.

    Args:
      specs: all runs that the table lists.
      given: variables of the teacher of this command; None if it trains nothing, or gives none.
      before: earlier table.json.
    """
    first: dict[str, str] = {}  # digest of the weights to a run
    for spec in specs:
        if spec.row is None or spec.teacher_workdir or not terms.needs_teacher(spec.row.method):
            continue
        entry = before.entry(spec) if before else None
        if digest := entry.get("teacher") if entry else identity.of_teacher(spec.workdir):
            first.setdefault(digest, spec.name)
    if given is not None:
        first.setdefault(identity.of_weights(given), "this command")
    if len(first) > 1:
        names = list(first.values())
        raise UserError(
            "the students of a table must have one teacher, got teachers of different weights for "
            f"{listed(names)}: give the same teacher, or choose another --out"
        )


def _check_config(spec: RunSpec, *, is_merge: bool) -> None:
    config = spec.config.copy_and_resolve_references()
    if is_merge and run_files.has_config(spec.workdir):
        # --merge is not told where the data are: their identity is compared.
        stored = run_files.read_config(spec.workdir)["data"]
        config.data.update({key: stored[key] for key in ("source", "name", "data_dir")})
    run_files.check(spec.workdir, config.to_dict())
