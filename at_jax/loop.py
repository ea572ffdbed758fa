"""A run from start to end: ``train_and_evaluate(config, workdir)``."""

import functools
import pathlib
import statistics
from typing import Any

import flax.linen as nn
import jax
import ml_collections

from at_jax import checkpoint, data, experiment, parallel, run_directory, settings
from at_jax.experiment import Experiment, Teacher
from at_jax.report import duration, network_table, say
from at_jax.trainer import Interrupted, NonFinite, Trainer, evaluator

__all__ = ["Interrupted", "NonFinite", "evaluate", "train_and_evaluate"]


def train_and_evaluate(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    *,
    student: nn.Module | None = None,
    teacher: tuple[nn.Module, Any] | None = None,
    profile: bool = False,
) -> dict[str, Any]:
    """Train the student of a config, and its teacher first where there is none yet.

    Started again in the same workdir it resumes, or returns the result of a finished run.

    Args:
      config: every key of configs/base.py.
      workdir: where the run lives; the README says what it leaves.
      student: a module of your own in place of ``config.student``; its ``__call__`` takes
        ``(images, train=...)`` and taps its transfer points.
      teacher: a module and its variables, in place of ``config.teacher``.
      profile: write a profiler trace of some steps to ``<workdir>/profile``.

    Returns:
      What result.json says.

    Raises:
      ValueError: for input that cannot work, before anything compiles.
      Interrupted: after Ctrl-C, once all is saved.
      NonFinite: naming the step and the term; the last good checkpoint stays.
    """
    settings.check(config)
    workdir = pathlib.Path(workdir).expanduser().absolute()
    devices = parallel.devices(config.runtime.devices)
    parallel.check_batch_size(config.batch_size, devices, config.accumulation)
    _use_compilation_cache(config.runtime.compilation_cache)

    dataset = experiment.load_data(config)
    name = "" if student else config.student
    student = student or experiment.build(config, config.student, dataset.num_classes)
    known = _known_teacher(config, teacher)
    needs_teacher = bool(settings.method_parts(config.method))
    planned = known
    if needs_teacher and known is None:
        module = experiment.build(config, config.teacher.model, dataset.num_classes)
        planned = Teacher(module)
    # On shapes, with the teacher that will be: none is trained for a student that cannot follow it.
    run = experiment.assemble(config, dataset, student, name, planned)
    run_directory.claim(workdir, config.to_dict())
    if planned is not known:
        known = _train_teacher(config, workdir / "teacher")
        run = experiment.assemble(config, dataset, student, name, known)

    _describe(run, config, devices)
    wall_seconds = Trainer(config, workdir, run, devices, profile=profile).train()
    return _finish(run, config, workdir, devices, wall_seconds)


def evaluate(config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> dict[str, float]:
    """Measure a run on its test set: its latest and its best checkpoint.

    Args:
      config: of the run.
      workdir: of the run.

    Returns:
      ``test_error`` and ``best_test_error``, in percent.

    Raises:
      ValueError: if the workdir holds no checkpoint.
    """
    settings.check(config)
    devices = parallel.devices(config.runtime.devices)
    _use_compilation_cache(config.runtime.compilation_cache)
    runs = {
        "test_error": checkpoint.load(workdir),
        "best_test_error": checkpoint.load(workdir, which="best"),
    }
    dataset = experiment.load_data(config)
    prepare = functools.partial(data.normalize, mean=dataset.mean, std=dataset.std)
    errors = {}
    for key, (module, variables) in runs.items():
        measure = evaluator(module, prepare, dataset.test, config.batch_size, devices)
        errors[key] = measure(parallel.replicate(variables, devices))
    return errors


def _use_compilation_cache(folder: str) -> None:
    """Keep compiled programs between runs, small ones too: a start waits for hundreds of them."""
    if folder and not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(folder).expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _known_teacher(config, teacher: tuple[nn.Module, Any] | None) -> Teacher | None:
    if teacher is not None:
        return Teacher(*teacher)
    if config.teacher.checkpoint:
        return experiment.load_teacher(config, config.teacher.checkpoint)
    return None


def _train_teacher(config, workdir: pathlib.Path) -> Teacher:
    say(f"No teacher.checkpoint is given: the teacher, {config.teacher.model}, is trained first.")
    train_and_evaluate(settings.teacher_config(config), workdir)
    say(f"Now the student: {config.student}, method {config.method}.")
    return experiment.load_teacher(config, workdir)


def _describe(run: Experiment, config, devices) -> None:
    """What will be trained, on what, where."""
    dataset = run.dataset
    say(network_table(run.objective.student, dataset.image_shape))
    for s, t in run.objective.points:
        say(f"  transfer: student {s} {'x'.join(map(str, run.taps[s].shape[1:]))} <- teacher {t}")
    say(
        f"  {dataset.name}: {len(dataset.train):,} training and {len(dataset.test):,} "
        f"{dataset.evaluated_on} images of {'x'.join(map(str, dataset.image_shape))}, "
        f"{dataset.num_classes} classes\n"
        f"  {config.epochs} epochs of {run.steps_per_epoch} steps on {parallel.describe(devices)}"
    )


def _finish(run: Experiment, config, workdir, devices, wall_seconds: float) -> dict[str, Any]:
    """Write result.json, and say the three things that one wants to know."""
    lines = run_directory.read_metrics(workdir)
    speeds = [line["images_per_second"] for line in lines if line["images_per_second"]]
    teacher_error = None
    if run.teacher is not None:
        measure = evaluator(
            run.teacher.module, run.prepare_eval, run.dataset.test, config.batch_size, devices
        )
        teacher_error = measure(parallel.replicate(run.teacher.variables, devices))
    result = {
        "student": config.student,
        "method": config.method,
        "test_error": lines[-1]["test_error"],
        "best_test_error": min(line["test_error"] for line in lines),
        "teacher_test_error": teacher_error,
        "evaluated_on": run.dataset.evaluated_on,
        "parameters": run.parameters,
        "epochs": config.epochs,
        "seed": config.seed,
        "images_per_second": statistics.median(speeds) if speeds else None,
        "wall_seconds": round(wall_seconds, 1),
        "device": parallel.describe(devices),
    }
    run_directory.write_json(workdir / run_directory.RESULT, result)
    on = "" if run.dataset.evaluated_on == "test" else f" on the {run.dataset.evaluated_on} part"
    if teacher_error is not None:
        say(f"teacher error  {teacher_error:.2f} %{on}")
    say(
        f"{config.method + ' ' if run.teacher else ''}{config.student} error  "
        f"{result['test_error']:.2f} %{on} (best {result['best_test_error']:.2f} %), "
        f"{config.epochs} epochs in {duration(wall_seconds)}"
    )
    say(f"everything is in {workdir}")
    return result
