"""A run from start to end: ``train_and_evaluate(config, workdir)``."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import ml_collections

from at_jax import (
    checkpoint,
    data,
    experiment,
    inputs,
    methods,
    outcome,
    parallel,
    run_directory,
    settings,
)
from at_jax.evaluation import evaluator
from at_jax.experiment import Experiment
from at_jax.interrupt import Interrupted
from at_jax.pairing import Teacher
from at_jax.report import network_table, say
from at_jax.trainer import NonFinite, Trainer

__all__ = ["Interrupted", "NonFinite", "evaluate", "train_and_evaluate", "train_together"]


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
    workdir = pathlib.Path(workdir).expanduser().absolute()
    run, devices = _prepare(config, workdir, student, teacher)
    (progress,) = Trainer([(config, workdir, run)], devices, profile=profile).train()
    return outcome.finish(
        run, config, workdir, progress, outcome.teacher_error(run, config, devices)
    )


def train_together(
    runs: Sequence[tuple[ml_collections.ConfigDict, str | pathlib.Path]],
) -> list[dict[str, Any]]:
    """Train several students in one program: they share the images of a step and one look of the teacher.

    Each leaves what a run alone leaves, and trains as it would alone on the same order of images.

    Args:
      runs: config and workdir of each. The configs may differ in student, seed, method, optimizer and
        weights; they have one ``data.order_seed``, and one finished run as ``teacher.checkpoint`` where
        the method asks for a teacher.

    Returns:
      What each result.json says.

    Raises:
      ValueError: if configs cannot share a program, or as :func:`train_and_evaluate`.
      Interrupted: after Ctrl-C, once all is saved.
      NonFinite: naming the step and the term; its ``workdir`` is that of the run.
    """
    prepared = []
    settings.check_together([config for config, _ in runs])
    folders = [pathlib.Path(folder).expanduser().absolute() for _, folder in runs]
    if len(set(folders)) < len(folders):
        raise ValueError("students that are trained together must have a workdir each")
    for (config, _), workdir in zip(runs, folders, strict=True):
        run, devices = _prepare(config, workdir, None, None, describe=not prepared)
        prepared.append((config, workdir, run))
    ends = Trainer(prepared, devices).train()
    taught = next((each for each in prepared if each[2].teacher is not None), None)
    teacher_error = outcome.teacher_error(taught[2], taught[0], devices) if taught else None
    return [
        outcome.finish(run, config, workdir, progress, teacher_error if run.teacher else None)
        for (config, workdir, run), progress in zip(prepared, ends, strict=True)
    ]


def _prepare(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    student: nn.Module | None,
    teacher: tuple[nn.Module, Any] | None,
    describe: bool = True,
) -> tuple[Experiment, tuple[jax.Device, ...]]:
    """All that comes before the first step: checks, the workdir's claim, a teacher that is there."""
    settings.check(config)
    devices = parallel.devices(
        config.runtime.devices, config.batch_size, accumulation=config.accumulation
    )
    run_directory.check(workdir, config.to_dict())
    _use_compilation_cache(config.runtime.compilation_cache)
    # What is cheap to find wrong comes before the data, which may take a minute to decode.
    known = _known_teacher(config, teacher)
    for name in _names(config, student, known):
        experiment.build(config, name, num_classes=2)

    dataset = inputs.load_data(config)
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
    if describe:
        _describe(run, config, devices)
    if run.teacher is not None and run.teacher.variables is None:
        known = _train_teacher(config, workdir / "teacher")
        say(f"Now the student: {run.name}, method {config.method}.")
        run = experiment.assemble(config, dataset, student, student_name, known)
    return run, devices


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
    dataset = inputs.load_data(config, hold_out=False)
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
    experiment.assemble(config, inputs.load_data(config), module, config.student, None)


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
