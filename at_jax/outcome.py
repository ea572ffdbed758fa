"""The end of a run: how good its teacher is, result.json, and the three lines that one wants to know."""

import pathlib
import statistics
from typing import Any

import jax
import ml_collections

from at_jax import parallel, processes, provenance, run_directory
from at_jax.evaluation import evaluator
from at_jax.experiment import Experiment
from at_jax.figures import of_run
from at_jax.report import duration, say
from at_jax.resume import Progress


def teacher_error(
    run: Experiment, config: ml_collections.ConfigDict, devices: tuple[jax.Device, ...]
) -> float | None:
    """Of the teacher in percent, on what the run is evaluated on; None where there is none."""
    if run.teacher is None:
        return None
    measure = evaluator(
        run.teacher.module, run.prepare_eval, run.dataset.test, config.batch_size, devices
    )
    return measure(parallel.replicate(run.teacher.variables, devices))


def finish(
    run: Experiment,
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    progress: Progress,
    teacher_error: float | None,
) -> dict[str, Any]:
    """Write result.json, and say the three things that one wants to know.

    Args:
      run: what was trained.
      config: of the run.
      workdir: of the run.
      progress: of its training.
      teacher_error: of :func:`teacher_error`; it is the same for all students of a teacher.

    Returns:
      What result.json says.

    Raises:
      ValueError: if the metrics of the last epoch are missing.
    """
    lines = run_directory.read_metrics(workdir)
    if not lines or lines[-1]["step"] != run.steps:
        raise ValueError(
            f"{workdir / run_directory.METRICS} lacks the last epoch of a finished run: it was cut short; "
            "measure the run with --evaluate, or train again in another --workdir"
        )
    speeds = [line["images_per_second"] for line in lines if line["images_per_second"]]
    result = {
        "student": run.name,
        "method": config.method,
        "test_error": lines[-1]["test_error"],
        "best_test_error": min(line["test_error"] for line in lines),
        "teacher_test_error": teacher_error,
        "evaluated_on": run.dataset.evaluated_on,
        "parameters": run.parameters,
        "epochs": config.epochs,
        "seed": config.seed,
        "images_per_second": statistics.median(speeds) if speeds else None,
        "wall_seconds": round(progress.wall_seconds, 1),
        **progress.origin,
        "finished": provenance.now(),
    }
    if kept := run_directory.read_result(workdir):
        # Another start of a finished run changes nothing.
        result["finished"] = kept.get("finished", result["finished"])
    run_directory.write_json(workdir / run_directory.RESULT, result)
    _say(run, config, result)
    if config.runtime.figures:
        if processes.several():
            # A picture is drawn by one: it would ask for the checkpoint, and wait for the others.
            say("no pictures of several processes: the same command in one process draws them")
        else:
            of_run.draw(workdir, run, result)
    say(f"everything is in {workdir}")
    return result


def _say(run: Experiment, config: ml_collections.ConfigDict, result: dict[str, Any]) -> None:
    on = "" if run.dataset.evaluated_on == "test" else f" on the {run.dataset.evaluated_on} part"
    if result["teacher_test_error"] is not None:
        say(f"teacher error  {result['teacher_test_error']:.2f} %{on}")
    say(
        f"{'' if config.method == 'none' else config.method + ' '}{run.name} error  "
        f"{result['test_error']:.2f} %{on} (best {result['best_test_error']:.2f} %), "
        f"{config.epochs} epochs in {duration(result['wall_seconds'])}"
    )
