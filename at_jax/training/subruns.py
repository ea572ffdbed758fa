"""Runs in subdirectories of a workdir: the teacher that is trained first, and comparisons.

Their errors are found before the main run is claimed.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

import flax.linen as nn
import ml_collections

from at_jax import data, terms
from at_jax.errors import UserError
from at_jax.training.components import component_records, networks
from at_jax.training.components.arguments import Arguments
from at_jax.training.components.compatibility import Teacher
from at_jax.training.components.datasets import load_dataset
from at_jax.training.config import comparison_config, settings_of, teacher_config
from at_jax.training.console import log
from at_jax.training.device_choice import devices_of
from at_jax.training.files import run_files
from at_jax.training.setup import assemble

__all__ = ["check_configs", "compared", "planned_teacher", "with_recorded_student"]


def with_recorded_student(workdir: pathlib.Path, arguments: Arguments) -> Arguments:
    """With ``module=``, a resumed run finds its user-defined student again."""
    if arguments.student is not None or not run_files.has_config(workdir):
        return arguments
    recorded = run_files.read_arguments(workdir).get("student")
    if recorded is None or arguments.module is None:
        return arguments
    student = component_records.from_record(recorded, arguments.module, workdir)
    return dataclasses.replace(arguments, student=student)


def compared(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, arguments: Arguments
) -> Iterator[tuple[str, ml_collections.ConfigDict, Arguments]]:
    """Methods of ``compare`` other than that of the run, with config and components of their runs.

    Args:
      config: of the main run.
      workdir: of the main run; a comparison is in the subdirectory with the name of its method.
      arguments: passed by the user.
    """
    is_given = arguments.teacher or config.teacher.checkpoint or config.teacher.weights
    for method in config.compare:
        if terms.parts(method) == terms.parts(config.method) and arguments.terms is None:
            continue
        needs_teacher = terms.needs_teacher(method)
        changed = comparison_config(config, method)
        if needs_teacher and not is_given:
            changed.teacher.checkpoint = str(workdir / run_files.TEACHER)  # the main run trains it
        yield method, changed, arguments.for_comparison(needs_teacher)


def check_configs(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    arguments: Arguments,
    needs_teacher: bool,
    trains_teacher: bool,
) -> None:
    """Check that the runs in subdirectories may be resumed with a config.

    Args:
      config: of the main run.
      workdir: of the main run.
      arguments: passed by the user.
      needs_teacher: whether the loss of the main run uses a teacher.
      trains_teacher: whether it is trained in a subdirectory.

    Raises:
      UserError: naming the keys that differ.
    """
    if trains_teacher:
        changed, record = teacher_config(config).to_dict(), arguments.for_teacher().record()
        folder = workdir / run_files.TEACHER
        run_files.check(folder, changed, record, keys=_teacher_keys(config))
    for method, each, own in compared(config, workdir, arguments):
        if needs_teacher or not terms.needs_teacher(method):  # others are skipped
            folder = workdir / method
            run_files.check(folder, each.to_dict(), with_recorded_student(folder, own).record())


def _teacher_keys(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Keys of the teacher's own config that the user sets by another key."""
    keys = {"student": "teacher.model", "data.train_examples": "teacher.train_examples"}
    if config.teacher.epochs:
        keys |= {"epochs": "teacher.epochs", "optimizer.drop_epochs": "teacher.drop_epochs"}
    return keys


def _note_drops(config: ml_collections.ConfigDict) -> None:
    """Print a note if the learning rate of a teacher does not drop where a user may expect it to."""
    own, drops = config.teacher, tuple(config.optimizer.drop_epochs)
    if config.optimizer.schedule != "steps":
        return
    if own.epochs and not own.drop_epochs and any(epoch < own.epochs for epoch in drops):
        log(
            f"note: the teacher's learning rate does not drop in its {own.epochs} epochs: with "
            f"teacher.epochs, set teacher.drop_epochs as well (the student's are {drops})",
            is_note=True,
        )
    if own.drop_epochs and not own.epochs:
        log(
            f"note: teacher.drop_epochs={tuple(own.drop_epochs)} is not used without teacher.epochs",
            is_note=True,
        )


def planned_teacher(
    config: ml_collections.ConfigDict,
    dataset: data.Dataset,
    student: nn.Module,
    name: str,
    arguments: Arguments,
) -> Teacher:
    """A teacher on shapes: none is trained for a student that cannot learn from it.

    Errors of its own run and of the comparison runs are found here, before the workdir is claimed.

    Args:
      config: of the main run.
      dataset: of the main run.
      student: its network.
      name: of the network in the library; empty for one of the user.
      arguments: passed by the user.

    Raises:
      UserError: if the teacher or a comparison cannot be trained.
    """
    settings = settings_of(teacher_config(config))
    module = networks.build(settings.student, dataset.num_classes, settings.dtype, "teacher.model")
    own_name = networks.library_name(settings.student)
    try:
        own = load_dataset(settings.data, given=arguments.dataset)
        run = assemble(settings, own, module, own_name, None, arguments.for_teacher())
        devices_of(settings, run.batches)
    except UserError as error:
        raise UserError(f"the run of the teacher (teacher.*): {error}") from error
    _note_drops(config)
    for method in config.compare:
        settings = settings_of(comparison_config(config, method))
        uses_teacher = terms.needs_teacher(method)
        changed = arguments.for_comparison(uses_teacher)
        teacher = Teacher(module) if uses_teacher else None
        try:
            assemble(settings, dataset, student, name, teacher, changed)
        except UserError as error:
            raise UserError(f"compare: {method}: {error}") from error
    return Teacher(module)
