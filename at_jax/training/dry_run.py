"""Checks of a run that trains nothing and writes nothing."""

import ml_collections

from at_jax import terms
from at_jax.data.decoding import check_sizes
from at_jax.distributed import devices
from at_jax.training.components import initialization, networks
from at_jax.training.components.arguments import Arguments
from at_jax.training.components.compatibility import Teacher
from at_jax.training.components.datasets import load_dataset
from at_jax.training.config import settings_of
from at_jax.training.device_choice import devices_of
from at_jax.training.preparation import known_teacher
from at_jax.training.settings import combinations
from at_jax.training.setup import Run, assemble

__all__ = ["check"]


def check(config: ml_collections.ConfigDict, *, trains_teacher: bool) -> Run:
    """Build a run on shapes.

    Args:
      config: of the run.
      trains_teacher: the teacher is ``teacher.model`` and need not be trained yet; otherwise it is loaded.

    Returns:
      The run.

    Raises:
      UserError: as :func:`at_jax.loop.train_and_evaluate` raises it before it trains.
    """
    settings = settings_of(config)
    combinations.check_scale(settings)
    devices.select(settings.runtime.devices, settings.batch_size, settings.accumulation)
    check_sizes(settings.data.image_size, count=settings.batch_size)
    initialization.check_place("init.weights", settings.init.weights)
    dataset = load_dataset(settings.data)
    student = networks.build(settings.student, dataset.num_classes, settings.dtype)
    name = networks.library_name(settings.student)
    teacher: Teacher | None
    if trains_teacher:
        teacher = Teacher(
            networks.build(
                settings.teacher.model, dataset.num_classes, settings.dtype, "teacher.model"
            )
        )
    else:
        needs_teacher = terms.needs_teacher(settings.method)
        teacher = known_teacher(settings, Arguments(), needs_teacher=needs_teacher)
    initial = initialization.of_settings(settings.init, student, dataset, None)
    run = assemble(settings, dataset, student, name, teacher, Arguments(), initial)
    devices_of(settings, run.batches)
    return run
