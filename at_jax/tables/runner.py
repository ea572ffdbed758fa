"""Training of the unfinished runs of a table. A run that fails does not stop the others."""

import contextlib
import pathlib
import statistics
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import jax

from at_jax import loop, paths
from at_jax.tables import sharding
from at_jax.tables.messages import in_options
from at_jax.tables.plan import RunSpec
from at_jax.training.console import duration, log
from at_jax.training.files import json_files, run_files, workdir_lock

__all__ = ["DIVERGED", "FAILURE", "Progress", "failure_of", "train_all"]

# Written to the workdir of a run that failed.
FAILURE = "failure.json"
# Kinds of failures: the loss became infinite or NaN; the teacher is not finished; any other.
DIVERGED, _NO_TEACHER, _OTHER = "diverged", "teacher", "error"


def failure_of(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Read why a run failed: ``kind`` and ``reason``; None if it did not fail, or finished since."""
    failure = {"kind": _OTHER, "reason": "unknown"}
    try:
        failure |= json_files.read(workdir / FAILURE)
    except FileNotFoundError:
        return None
    except json_files.Damaged as damaged:
        failure["reason"] = f"unknown, {FAILURE} is damaged: {damaged}"
    return None if run_files.read_result(workdir) else failure


class Progress:
    """Numbers of finished, failed and remaining runs, with an estimate of the remaining time."""

    def __init__(self, specs: Sequence[RunSpec], recorded: Collection[str] = ()):
        self._specs, self._recorded = list(specs), recorded
        self.failed: set[str] = set()  # by this command; runs that failed before are tried again

    def line(self) -> str:
        """Format the progress: ``3 of 13 runs done, 10 left, about 1:05:00``."""
        results = {spec.name: run_files.read_result(spec.workdir) for spec in self._specs}
        open_ = [s for s in self._specs if not results[s.name] and s.name not in self._recorded]
        failed = [s for s in open_ if s.name in self.failed]
        left = [s for s in open_ if s.name not in self.failed]
        seconds: dict[tuple[str, str, str], list[float]] = {}
        for spec in self._specs:
            if result := results[spec.name]:
                # The time of a program, divided among its students.
                took = result["wall_seconds"] / result.get("trained_together", 1)
                seconds.setdefault(_kind(spec), []).append(took)
        done = len(self._specs) - len(failed) - len(left)
        parts = [f"{done} of {len(self._specs)} runs done"]
        parts += [f"{len(failed)} failed"] if failed else []
        parts += [f"{len(left)} left"]
        if seconds and left:
            # The mean of finished runs of the same kind, or of all finished runs if there is none.
            overall = statistics.fmean(s for kind in seconds.values() for s in kind)
            expected = sum(statistics.fmean(seconds.get(_kind(spec), [overall])) for spec in left)
            parts.append(f"about {duration(expected)}")
        return ", ".join(parts)


def _kind(spec: RunSpec) -> tuple[str, str, str]:
    """Properties that determine the training time of a run."""
    teacher = spec.config.teacher.model if spec.teacher_workdir else ""
    return spec.config.student, spec.config.method, teacher


def train_all(
    specs: Sequence[RunSpec],
    *,
    recorded: Collection[str],
    together: int,
    after_group: Callable[[], None],
) -> None:
    """Train every unfinished run.

    Args:
      specs: teachers before their students.
      recorded: names of runs whose results are in table.json: they are finished, with or without a folder.
      together: largest number of students in one program.
      after_group: called when a group is done.

    Raises:
      loop.Interrupted: after a signal, once the state is saved.
      loop.StorageError: if the disk is full.
    """
    if specs and paths.scheme(specs[0].workdir):
        log("No file locks in cloud storage: run one command at a time in this --out")
    progress = Progress(specs, recorded)
    log(progress.line())
    unfinished = [
        s for s in specs if s.name not in recorded and not run_files.read_result(s.workdir)
    ]
    # Teachers are trained first, each alone: their students need a finished run, and its folder.
    teachers = {spec.teacher_workdir for spec in unfinished}
    first = [
        spec
        for spec in specs
        if spec.workdir in teachers or (spec.row is None and spec in unfinished)
    ]
    students = [spec for spec in unfinished if spec not in first]
    for group in [*([spec] for spec in first), *_groups(students, together)]:
        with _locked(group, wait=group[0] in first) as locked:
            left = [spec for spec in locked if not run_files.read_result(spec.workdir)]
            if not left:
                continue
            _train_group(left, progress.failed)
        # pmap keeps the programs of every run, which no other run uses.
        jax.clear_caches()
        after_group()
        log(f"[{progress.line()}]")


def _groups(students: Sequence[RunSpec], together: int) -> list[list[RunSpec]]:
    """Students of one program each; those that failed before are last and alone, to crash no others."""
    retry = [
        spec
        for spec in students
        if (failure := failure_of(spec.workdir)) and failure["kind"] != _NO_TEACHER
    ]
    fresh = [spec for spec in students if spec not in retry]
    return [*sharding.resumable_groups(fresh, together), *([spec] for spec in retry)]


@contextlib.contextmanager
def _locked(group: Sequence[RunSpec], *, wait: bool) -> Iterator[list[RunSpec]]:
    """Lock the runs of a group, and yield those that no other process is training.

    With `wait`, block until the other process is done, and yield all of them.
    """
    if paths.scheme(group[0].workdir):  # no locks there: check_out refuses shards
        yield list(group)
        return
    with contextlib.ExitStack() as stack:
        locked = []
        for spec in group:
            try:
                stack.enter_context(workdir_lock.hold(spec.workdir))
            except workdir_lock.InUse:
                if not wait:
                    log(f"{spec.name}: skipped, another process is training it")
                    continue
                log(f"{spec.name}: waiting for another process, which is training this teacher")
                stack.enter_context(workdir_lock.hold(spec.workdir, wait=True))
            locked.append(spec)
        yield locked


def _train_group(group: list[RunSpec], failures: set[str]) -> None:
    """Train runs in one program. A run that fails is recorded, and the others are trained without it."""
    group = [spec for spec in group if _has_teacher(spec, failures)]
    if not group:
        return
    log(f"--- {', '.join(spec.name for spec in group)}")
    try:
        for spec in group:
            (spec.workdir / FAILURE).unlink(missing_ok=True)
        if len(group) == 1:
            loop.train_and_evaluate(group[0].config, group[0].workdir)
        else:
            loop.train_together([(spec.config, spec.workdir) for spec in group])
    except (loop.Interrupted, loop.StorageError):
        raise
    except Exception as error:  # any error of one run must not stop the others
        parts = _after_error(error, group, failures)
    else:
        parts = []
    # Not while the error is handled: its traceback keeps the arrays of the program alive.
    for part in parts:
        _train_group(part, failures)


def _after_error(error: Exception, group: list[RunSpec], failures: set[str]) -> list[list[RunSpec]]:
    """Record the runs that an error names, and return groups of the others, which are trained again."""
    # Errors of one run of a program name its workdir; others, such as out of memory, do not.
    where = getattr(error, "workdir", None)
    failed = [s for s in group if len(group) == 1 or paths.absolute(s.workdir) == where]
    reason = f"{type(error).__name__}: {in_options(str(error))}"
    for spec in failed:
        kind = DIVERGED if isinstance(error, loop.NonFinite) else _OTHER
        _record_failure(spec, kind, reason, failures, traceback.format_exc())
    left = [s for s in group if s not in failed and not run_files.read_result(s.workdir)]
    if failed:
        return [left]
    log(f"The program of {len(group)} runs failed, each is trained alone: {reason}")
    return [[spec] for spec in left]


def _has_teacher(spec: RunSpec, failures: set[str]) -> bool:
    """Whether the teacher of a run is finished, or it has none; otherwise the run has failed."""
    if not spec.teacher_workdir or run_files.read_result(spec.teacher_workdir):
        return True
    reason = f"its teacher, {spec.teacher_workdir}, is not finished"
    _record_failure(spec, _NO_TEACHER, reason, failures)
    return False


def _record_failure(
    spec: RunSpec, kind: str, reason: str, failures: set[str], trace: str = ""
) -> None:
    failures.add(spec.name)
    log(f"{spec.name} FAILED, the other runs continue: {reason}")
    run_files.write_json(
        spec.workdir / FAILURE, {"kind": kind, "reason": reason, "traceback": trace}
    )
