"""Preparation of a run before its first step: checks, the claim on the workdir, the teacher."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import ml_collections

from at_jax import data, paths, terms
from at_jax.data.decoding import check_sizes
from at_jax.distributed import devices, processes
from at_jax.errors import UserError, naming
from at_jax.training import compilation_cache, description, resume, subruns
from at_jax.training.components import initialization, networks
from at_jax.training.components.arguments import Arguments, chosen_terms
from at_jax.training.components.compatibility import Teacher
from at_jax.training.components.datasets import load_dataset
from at_jax.training.config import flatten, settings_of, teacher_config
from at_jax.training.console import log
from at_jax.training.device_choice import devices_of
from at_jax.training.files import identity, run_files
from at_jax.training.files.checkpoints import check_can_save
from at_jax.training.settings import Settings, combinations
from at_jax.training.setup import Run, assemble

__all__ = ["Prepared", "prepare", "prepare_comparisons"]

# Paths and numbers of cores may differ between machines.
_LOCAL_KEYS = ("data.data_dir", "data.workers", "runtime.compilation_cache")
TrainTeacher = Callable[[ml_collections.ConfigDict, pathlib.Path, Arguments], Any]


class Prepared(NamedTuple):
    """A run that is ready to be trained, its workdir and its devices."""

    run: Run
    workdir: pathlib.Path
    devices: tuple[jax.Device, ...]


def prepare(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    arguments: Arguments,
    *,
    train_teacher: TrainTeacher | None = None,
    describe: bool = True,
) -> Prepared:
    """Check a config, claim the workdir, and build the run; train its teacher where there is none yet.

    Args:
      config: of the run.
      workdir: of the run.
      arguments: passed by the user.
      train_teacher: trains a config in a workdir.
      describe: print the network, the data and the length of the run.

    Raises:
      UserError: for input that cannot work, before anything is written.
    """
    settings = settings_of(config)
    _check_processes(flatten(config.to_dict()), settings, workdir)
    arguments = subruns.with_recorded_student(workdir, arguments)
    _check_new(workdir, settings, arguments, is_main=train_teacher is not None)
    record = arguments.record()
    run_files.check(workdir, config.to_dict(), record)
    compilation_cache.use(settings.runtime.compilation_cache)
    # Cheap checks come before the data, which may take a minute to decode.
    needs_teacher = any(each.term.needs_teacher for each in chosen_terms(settings, arguments))
    known = known_teacher(settings, arguments, needs_teacher=needs_teacher)
    trains_teacher = needs_teacher and known is None
    subruns.check_configs(config, workdir, arguments, needs_teacher, trains_teacher)
    check_sizes(settings.data.image_size, count=settings.batch_size)
    initialization.check_place("init.weights", settings.init.weights)
    dataset = load_dataset(settings.data, given=arguments.dataset)
    identified = identity.check_data(workdir, dataset, allow_changes=settings.data.allow_changes)
    student, name = _student(settings, arguments, dataset)
    initial = initialization.of_settings(settings.init, student, dataset, arguments.module)
    identified = identity.check_initial(workdir, identified, initial and initial.fingerprint)
    if trains_teacher:
        known = subruns.planned_teacher(config, dataset, student, name, arguments)
    run = assemble(settings, dataset, student, name, known, arguments, initial)
    resume.check_steps_per_epoch(run, workdir)
    used = _devices(settings, run)
    if known is not None and not trains_teacher:
        identified = identity.check_teacher(workdir, identified, known.variables, _given(settings))
    run_files.claim(workdir, config.to_dict(), record, identified)
    if describe:
        description.log_lines(run, used)
    if trains_teacher:
        assert train_teacher is not None, "check_together excludes runs without a finished teacher"
        folder = workdir / run_files.TEACHER
        log(f"No teacher.checkpoint: training the teacher, {settings.teacher.model}, first.")
        train_teacher(teacher_config(config), folder, arguments.for_teacher())
        known = _load_teacher(str(folder), settings, arguments)
        log(f"Training the student: {run.name}, method {run.method}.")
        run = assemble(settings, dataset, student, name, known, arguments, initial)
        identified = identity.check_teacher(workdir, identified, known.variables, str(folder))
        run_files.record_identity(workdir, identified)
    return Prepared(run, workdir, used)


def prepare_comparisons(
    config: ml_collections.ConfigDict,
    main: Prepared,
    arguments: Arguments,
    lock: Callable[[pathlib.Path], None],
) -> list[Prepared]:
    """Prepare a run for each method of ``compare``, in a subdirectory of the workdir with its name.

    They are ordinary runs with the teacher of the main one. Their figures are those of the main run.

    Args:
      config: of the main run.
      main: the main run, whose teacher is finished.
      arguments: passed by the user.
      lock: takes the lock of a workdir.

    Returns:
      The runs without the main one.

    Raises:
      UserError: as :func:`prepare`.
    """
    prepared = []
    for method, changed, own in subruns.compared(config, main.workdir, arguments):
        if terms.needs_teacher(method) and main.run.teacher is None:
            log(f"compare: {method} is skipped, because {main.run.method} has no teacher")
            continue
        folder = main.workdir / method
        lock(folder)
        prepared.append(prepare(changed, folder, own, describe=False))
    return prepared


def _check_processes(values: Mapping[str, Any], settings: Settings, workdir: pathlib.Path) -> None:
    """Check that all processes have the same config, enough devices, and the workdir."""
    processes.check_same({k: v for k, v in values.items() if k not in _LOCAL_KEYS})
    devices.select(settings.runtime.devices, settings.batch_size, settings.accumulation)
    check_can_save(workdir)
    processes.broadcast_from_primary(lambda: paths.reachable(workdir).name)


def known_teacher(
    settings: Settings, arguments: Arguments, *, needs_teacher: bool
) -> Teacher | None:
    """Load the teacher that the config or the caller gives.

    Args:
      settings: of the run.
      arguments: components passed by the caller.
      needs_teacher: whether the loss uses one.

    Returns:
      The teacher; None if it must be trained first, or the loss uses none.

    Raises:
      UserError: for several teachers, one that the loss does not use, or one that cannot be loaded.
    """
    teacher = settings.teacher
    key = "weights" if teacher.weights else "checkpoint"
    given = getattr(teacher, key)
    loss = f"method {settings.method!r}" if arguments.terms is None else "the loss of terms="
    if arguments.teacher is not None and given:
        raise UserError(
            f"one teacher is used, got both teacher= and teacher.{key}={given!r}: pass one of them"
        )
    if (arguments.teacher is not None or given) and not needs_teacher:
        got = f"teacher.{key}={given!r}" if given else "teacher="
        raise UserError(
            f"{loss} uses no teacher, got {got}: leave it out, or choose a method such as at"
        )
    if arguments.teacher is not None:
        return Teacher(*arguments.teacher)
    if teacher.checkpoint:
        with naming("teacher.checkpoint", teacher.checkpoint):
            return _load_teacher(teacher.checkpoint, settings, arguments)
    if teacher.weights:
        with naming("teacher.weights", teacher.weights):
            return initialization.load_teacher(teacher.weights, teacher.model, settings.dtype)
    if needs_teacher and (teacher.image_size or teacher.mean):
        raise UserError(
            "a teacher that is trained first sees the student's images, got teacher.image_size="
            f"{teacher.image_size} and teacher.mean={teacher.mean}: pass an existing teacher, "
            "teacher.weights or teacher.checkpoint, or leave them out"
        )
    return None


def _given(settings: Settings) -> str:
    """The key or the argument that gives a teacher, for messages."""
    for key in ("checkpoint", "weights"):
        if place := getattr(settings.teacher, key):
            return f"teacher.{key}={place!r}"
    return "teacher="


def _student(
    settings: Settings, arguments: Arguments, dataset: data.Dataset
) -> tuple[nn.Module, str]:
    """The student and its name in the library, empty for a network of the user."""
    if arguments.student is not None:
        return arguments.student, ""
    built = networks.build(settings.student, dataset.num_classes, settings.dtype)
    return built, networks.library_name(settings.student)


def _load_teacher(workdir: str, settings: Settings, arguments: Arguments) -> Teacher:
    """Load a teacher's run; its network may be named by teacher.model, or passed."""
    model = settings.teacher.model
    module = arguments.module if networks.library_name(model) else model
    return networks.load_teacher(workdir, settings.dtype, module)


def _check_new(
    workdir: pathlib.Path, settings: Settings, arguments: Arguments, *, is_main: bool
) -> None:
    """Check what a new run must not have: statistics of pixels in 0..1, and an unused ``module=``."""
    if run_files.has_config(workdir):
        return
    combinations.check_scale(settings)
    opens = settings.teacher.checkpoint or settings.init.weights
    # Comparison runs keep a module that the main run needs for its teacher.
    if is_main and arguments.module is not None and not opens:
        named = arguments.module if isinstance(arguments.module, str) else "package:name"
        raise UserError(
            "module= and --module name the network of a run that is opened again, got a new run: to train "
            f"a network of your own, set --config.student={named}, or pass student="
        )


def _devices(settings: Settings, run: Run) -> tuple[jax.Device, ...]:
    used, student = devices_of(settings, run.batches), run.objective.student
    if run.has_statistics and len(used) > 1 and not hasattr(student, "bn_axis_name"):
        raise UserError(
            f"{run.name} has batch statistics and no field bn_axis_name, so each of {len(used)} devices "
            "would normalize by its own part of the batch: add the field and pass it to "
            "nn.BatchNorm(axis_name=...), or train on one device, --config.runtime.devices=1"
        )
    return used
