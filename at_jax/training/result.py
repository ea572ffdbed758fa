"""Final evaluation of a run, result.json, and the final messages."""

import pathlib
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import jax

from at_jax.distributed import devices
from at_jax.errors import UserError
from at_jax.objective import Objective
from at_jax.training import collapse, metrics
from at_jax.training.console import counted, duration, log
from at_jax.training.evaluation import evaluator
from at_jax.training.files import provenance, run_files
from at_jax.training.resume import Progress
from at_jax.training.setup import Run

__all__ = ["finish", "teacher_errors"]

_TEST_ERRORS = tuple(f"test_{name}" for name in metrics.ERRORS)


def teacher_errors(
    run: Run, workdir: pathlib.Path, used: tuple[jax.Device, ...]
) -> dict[str, float] | None:
    """Errors of the teacher in percent, on the split that the run is evaluated on.

    A run that was already finished has them in result.json. None without a teacher, and for a teacher whose
    classes are not those of the data.
    """
    if run.teacher is None or run.other_classes:
        return None
    kept = (run_files.read_result(workdir) or {}) if run_files.has_result(workdir) else {}
    if found := {
        n: kept[f"teacher_{n}"] for n in _TEST_ERRORS if kept.get(f"teacher_{n}") is not None
    }:
        return found
    objective = Objective(run.teacher.module)
    evaluate = evaluator(
        objective, _prepare_teacher(run), run.dataset.test, run.settings.batch_size, used
    )
    return evaluate(devices.replicate(run.teacher.variables, used)).errors


def _prepare_teacher(run: Run) -> Callable[[jax.Array], jax.Array]:
    """Normalization, and the teacher's own size and normalization."""
    to_teacher = run.objective.teacher_images
    if to_teacher is None:
        return run.prepare_eval
    return lambda images: to_teacher(run.prepare_eval(images))


def finish(
    run: Run,
    workdir: pathlib.Path,
    progress: Progress,
    errors_t: Mapping[str, float] | None,
    *,
    quiet: bool = False,
) -> dict[str, Any]:
    """Write result.json, and print the errors of teacher and student.

    Args:
      run: that was trained.
      workdir: of the run.
      progress: of its training.
      errors_t: of :func:`teacher_errors`; the same for all students of a teacher.
      quiet: print nothing.

    Returns:
      The content of result.json.

    Raises:
      UserError: if the metrics of the last epoch are missing.
    """
    lines = run_files.read_metrics(workdir)
    if not lines or lines[-1]["step"] != run.steps:
        raise UserError(
            f"{workdir / run_files.METRICS} lacks the last epoch of a finished run: evaluate the run with "
            "--evaluate, or train again in another --workdir"
        )
    speeds = [line["images_per_second"] for line in lines if line["images_per_second"]]
    result = {
        "student": run.name,
        "method": run.method,
        **{name: lines[-1][name] for name in _TEST_ERRORS if name in lines[-1]},
        "best_test_error": min(line["test_error"] for line in lines),
        collapse.KEY: collapse.is_collapsed(lines),
        "teacher_test_error": None,
        **{f"teacher_{name}": error for name, error in (errors_t or {}).items()},
        "evaluated_on": run.dataset.evaluated_on,
        "parameters": run.parameters,
        "epochs": run.settings.epochs,
        "seed": run.settings.seed,
        "images_per_second": statistics.median(speeds) if speeds else None,
        "wall_seconds": round(progress.wall_seconds, 1),
        **progress.origin,
        "finished": provenance.now(),
    }
    if kept := run_files.read_result(workdir):
        # Starting a finished run again changes nothing.
        result["finished"] = kept.get("finished", result["finished"])
        if not quiet:
            log(
                f"The run in {workdir} was already finished: nothing was trained. For a new run, "
                "for example after a change of your own code, choose another --workdir"
            )
    if kept != result:
        run_files.write_json(workdir / run_files.RESULT, result)
    if not quiet:
        _log_errors(run, result)
    return result


def _log_errors(run: Run, result: dict[str, Any]) -> None:
    on = "" if run.dataset.evaluated_on == "test" else f" on the {run.dataset.evaluated_on} split"
    if result["teacher_test_error"] is not None:
        log(f"teacher error  {metrics.shown(result, 'teacher_test_error')}{on}")
    elif run.teacher is not None:
        log("teacher error  not defined: the teacher and the data have different classes")
    log(
        f"{'' if run.method == 'none' else run.method + ' '}{run.name} error  "
        f"{metrics.shown(result)}{on} (best {result['best_test_error']:.2f} %), "
        f"{counted(result['epochs'], 'epoch')} in {duration(result['wall_seconds'])}"
    )
