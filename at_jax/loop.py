"""A run from start to end: ``train_and_evaluate(config, workdir)``."""

import functools
import pathlib
import statistics
from typing import Any

import flax.linen as nn
import jax
import ml_collections

from at_jax import checkpoint, data, experiment, methods, parallel, run_directory, settings
from at_jax.evaluation import evaluator
from at_jax.experiment import Experiment
from at_jax.figures import of_run
from at_jax.interrupt import Interrupted
from at_jax.pairing import Teacher
from at_jax.report import duration, network_table, say
from at_jax.trainer import NonFinite, Trainer

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
    devices = parallel.devices(
        config.runtime.devices, config.batch_size, accumulation=config.accumulation
    )
    run_directory.check(workdir, config.to_dict())
    _use_compilation_cache(config.runtime.compilation_cache)
    # What is cheap to find wrong comes before the data, which may take a minute to decode.
    known = _known_teacher(config, teacher)
    for name in _names(config, student, known):
        experiment.build(config, name, num_classes=2)

    dataset = experiment.load_data(config)
    student_name = "" if student else config.student
    student = student or experiment.build(config, config.student, dataset.num_classes)
    if methods.needs_teacher(config.method) and known is None:
        # On shapes, with the teacher that will be: none is trained for a student that cannot follow it.
        planned = experiment.build(config, config.teacher.model, dataset.num_classes)
        run = experiment.assemble(config, dataset, student, student_name, Teacher(planned))
        _check_teacher_config(settings.teacher_config(config), planned)
    else:
        run = experiment.assemble(config, dataset, student, student_name, known)
    _check_statistics(run, devices)
    run_directory.claim(workdir, config.to_dict())
    _describe(run, config, devices)
    if run.teacher is not None and run.teacher.variables is None:
        known = _train_teacher(config, workdir / "teacher")
        say(f"Now the student: {run.name}, method {config.method}.")
        run = experiment.assemble(config, dataset, student, student_name, known)

    wall_seconds = Trainer(config, workdir, run, devices, profile=profile).train()
    return _finish(run, config, workdir, devices, wall_seconds)


def evaluate(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    *,
    student: nn.Module | None = None,
) -> dict[str, float]:
    """Measure a run on its test set: its latest and its best checkpoint.

    It is the test set also where the run held a validation part out and measured that.

    Args:
      config: of the run.
      workdir: of the run.
      student: the module, where the run trained one of your own.

    Returns:
      ``test_error`` and ``best_test_error``, in percent.

    Raises:
      ValueError: if the workdir holds no checkpoint.
    """
    settings.check(config)
    devices = parallel.devices(config.runtime.devices, config.batch_size)
    _use_compilation_cache(config.runtime.compilation_cache)
    opened = {
        key: checkpoint.open_run(workdir, which=which, module=student)
        for key, which in (("test_error", "latest"), ("best_test_error", "best"))
    }
    dataset = experiment.load_data(config, hold_out=False)
    errors = {}
    for key, (module, variables, description) in opened.items():
        prepare = functools.partial(
            data.normalize, mean=description["mean"], std=description["std"]
        )
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
    if teacher is None:
        named = config.teacher.checkpoint
        return experiment.load_teacher(config, named) if named else None
    if config.teacher.checkpoint or not methods.needs_teacher(config.method):
        raise ValueError(
            "a teacher was passed to train_and_evaluate, got also teacher.checkpoint="
            f"{config.teacher.checkpoint!r} and method {config.method!r}: give one teacher, and a method "
            "that uses it"
        )
    return Teacher(*teacher)


def _names(config, student: nn.Module | None, known: Teacher | None) -> list[str]:
    """The networks that will be built by name."""
    names = [] if student else [config.student]
    if methods.needs_teacher(config.method) and known is None:
        names.append(config.teacher.model)
    return names


def _check_teacher_config(config, module: nn.Module) -> None:
    """Find now what would stop the teacher's own run, once the workdir is taken."""
    experiment.assemble(config, experiment.load_data(config), module, config.student, None)


def _check_statistics(run: Experiment, devices: tuple[jax.Device, ...]) -> None:
    if (
        run.has_statistics
        and len(devices) > 1
        and not hasattr(run.objective.student, "bn_axis_name")
    ):
        raise ValueError(
            f"{run.name} normalises by the batch and has no field bn_axis_name, so on {len(devices)} "
            "devices each would normalise by its own part: add the field and pass it to "
            "nn.BatchNorm(axis_name=...), or train on one device, --config.runtime.devices=1"
        )


def _train_teacher(config, workdir: pathlib.Path) -> Teacher:
    say(f"No teacher.checkpoint is given: the teacher, {config.teacher.model}, is trained first.")
    train_and_evaluate(settings.teacher_config(config), workdir)
    return experiment.load_teacher(config, workdir)


def _describe(run: Experiment, config, devices) -> None:
    """What will be trained, on what, where."""
    dataset = run.dataset
    say(network_table(run.objective.student, dataset.image_shape))
    for s, t in run.objective.points:
        say(f"  transfer: student {s} {'x'.join(map(str, run.taps[s].shape[1:]))} <- teacher {t}")
    drops = [epoch for epoch in config.optimizer.drop_epochs if epoch >= config.epochs]
    if drops:
        say(
            f"  note: the run ends after {config.epochs} epochs, before the rate drops at "
            f"{', '.join(map(str, drops))} (optimizer.drop_epochs)"
        )
    say(
        f"  {dataset.name}: {len(dataset.train):,} training and {len(dataset.test):,} "
        f"{dataset.evaluated_on} images of {'x'.join(map(str, dataset.image_shape))}, "
        f"{dataset.num_classes} classes\n"
        f"  {config.epochs} epochs of {run.steps_per_epoch} steps on {parallel.describe(devices)}"
    )


def _finish(run: Experiment, config, workdir, devices, wall_seconds: float) -> dict[str, Any]:
    """Write result.json, and say the three things that one wants to know."""
    lines = run_directory.read_metrics(workdir)
    if not lines or lines[-1]["step"] != run.steps:
        raise ValueError(
            f"{workdir / run_directory.METRICS} lacks the last epoch of a finished run: it was cut short; "
            "measure the run with --evaluate, or train again in another --workdir"
        )
    speeds = [line["images_per_second"] for line in lines if line["images_per_second"]]
    teacher_error = None
    if run.teacher is not None:
        measure = evaluator(
            run.teacher.module, run.prepare_eval, run.dataset.test, config.batch_size, devices
        )
        teacher_error = measure(parallel.replicate(run.teacher.variables, devices))
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
        "wall_seconds": round(wall_seconds, 1),
        "device": parallel.describe(devices),
    }
    run_directory.write_json(workdir / run_directory.RESULT, result)
    on = "" if run.dataset.evaluated_on == "test" else f" on the {run.dataset.evaluated_on} part"
    if teacher_error is not None:
        say(f"teacher error  {teacher_error:.2f} %{on}")
    say(
        f"{'' if config.method == 'none' else config.method + ' '}{run.name} error  "
        f"{result['test_error']:.2f} %{on} (best {result['best_test_error']:.2f} %), "
        f"{config.epochs} epochs in {duration(wall_seconds)}"
    )
    if config.runtime.figures:
        of_run.draw(workdir, run, result)
    say(f"everything is in {workdir}")
    return result
