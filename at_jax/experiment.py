"""From a config to the pieces of a run.

Whatever is wrong with a pair of networks, or with networks and data, is found here, before anything
compiles and before a teacher is trained; single values were checked by settings.py.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax

from at_jax import (
    checkpoint,
    data,
    methods,
    models,
    pairing,
    parallel,
    run_directory,
    schedules,
    settings,
    state,
    terms,
)
from at_jax.objective import Objective
from at_jax.pairing import Teacher
from at_jax.step import Prepare


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """The pieces of one run, ready to be compiled.

    Attributes:
      dataset: with the chosen training images.
      objective: student, teacher, terms.
      teacher: or None.
      optimizer: with its schedule.
      learning_rate: step -> rate.
      weights: term -> (step -> beta).
      batches: of the training images.
      steps: updates in the whole run.
      prepare_train: augments and normalises.
      prepare_eval: normalises.
      taps: shapes of the student's activations.
      parameters: how many numbers the student learns, statistics not counted.
      has_statistics: whether the student normalises by the batch.
      name: of the student: that of :func:`at_jax.models.build`, or the class of the user's own module.
      description: what a later run must know of the student to use it, for its checkpoints, as JSON:
        ``name`` (empty for the user's own module), ``num_classes``, ``class_names``, ``image_shape``
        (H, W, C), ``mean`` and ``std`` of the normalisation (per channel, 0..255), ``dtype`` of the
        computation.
    """

    dataset: data.Dataset
    objective: Objective
    teacher: Teacher | None
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    weights: dict[str, optax.Schedule]
    batches: data.TrainBatches
    steps: int
    prepare_train: Prepare
    prepare_eval: Callable[[jax.Array], jax.Array]
    taps: dict[str, jax.ShapeDtypeStruct]
    parameters: int
    has_statistics: bool
    name: str
    description: dict[str, Any]

    @property
    def steps_per_epoch(self) -> int:
        """Updates in an epoch."""
        return self.batches.steps_per_epoch


def build(config: ml_collections.ConfigDict, name: str, num_classes: int) -> nn.Module:
    """A network by name, in the config's dtype."""
    return models.build(name, num_classes, jnp.dtype(config.dtype))


def load_teacher(config: ml_collections.ConfigDict, workdir: Any) -> Teacher:
    """Open a teacher's run, in the config's dtype.

    Raises:
      ValueError: if there is no run, or one that has not come to its end.
    """
    module, variables, description = checkpoint.open_run(workdir)
    if not run_directory.has_result(pathlib.Path(workdir).expanduser()):
        raise ValueError(
            f"the teacher's run in {workdir} has not come to its end: start it again to finish it, or name "
            "another run in teacher.checkpoint"
        )
    return Teacher(module.clone(dtype=jnp.dtype(config.dtype)), variables, description)


def assemble(
    config: ml_collections.ConfigDict,
    dataset: data.Dataset,
    student: nn.Module,
    name: str,
    teacher: Teacher | None,
) -> Experiment:
    """Put a run together, and trace its loss once on shapes so that every error is raised here.

    Args:
      config: checked.
      dataset: of the config.
      student: the network to train.
      name: its name for :func:`at_jax.models.build`; empty for the user's own module.
      teacher: or None; without variables the result only serves as a check.

    Returns:
      The pieces.

    Raises:
      ValueError: if networks, data and terms do not fit together.
    """
    parts = methods.parts_of(config.method)
    batches = data.TrainBatches(dataset.train, config.batch_size, settings.order_seed(config))
    per_epoch = batches.steps_per_epoch
    steps = config.epochs * per_epoch
    variables, logits, taps = pairing.shapes(student, dataset.image_shape)
    if logits.shape != (1, dataset.num_classes):
        raise ValueError(
            f"the student must give {dataset.num_classes} logits for {dataset.name}, got shape "
            f"{logits.shape[1:]}: build it with num_classes={dataset.num_classes}"
        )
    if teacher is not None and teacher.description is not None:
        pairing.check_agreement(dataset, teacher.description)
    objective, teacher_variables, adapter_shapes = pairing.join(
        config, parts, student, logits, taps, teacher, dataset.image_shape
    )
    learning_rate, weights = _schedules(config, per_epoch, steps, objective.weighted_terms)
    prepare, normalize = _preparation(config, dataset)
    pairing.trace(
        prepare,
        objective,
        {"student": variables["params"], "adapter": adapter_shapes},
        variables.get("batch_stats", {}),
        teacher_variables,
        (config.batch_size, *dataset.image_shape),
    )
    if hasattr(student, "bn_axis_name"):
        objective = dataclasses.replace(
            objective, student=student.clone(bn_axis_name=parallel.AXIS_NAME)
        )
    return Experiment(
        dataset=dataset,
        objective=objective,
        teacher=teacher,
        optimizer=state.sgd(
            learning_rate,
            momentum=config.optimizer.momentum,
            weight_decay=config.optimizer.weight_decay,
        ),
        learning_rate=learning_rate,
        weights=weights,
        batches=batches,
        steps=steps,
        prepare_train=prepare,
        prepare_eval=normalize,
        taps=taps,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        has_statistics=bool(variables.get("batch_stats")),
        name=name or type(student).__name__,
        description={
            "name": name,
            "num_classes": dataset.num_classes,
            "class_names": list(dataset.class_names),
            "image_shape": list(dataset.image_shape),
            "mean": list(dataset.mean),
            "std": list(dataset.std),
            "dtype": config.dtype,
        },
    )


def _schedules(
    config: ml_collections.ConfigDict, per_epoch: int, steps: int, weighted: tuple[str, ...]
) -> tuple[optax.Schedule, dict[str, optax.Schedule]]:
    """The learning rate and the weight of each term, as functions of the step; the config has epochs."""

    def to_steps(epochs):
        return tuple(epoch * per_epoch for epoch in epochs)

    learning_rate = schedules.step_decay(
        config.optimizer.learning_rate,
        to_steps(config.optimizer.drop_epochs),
        config.optimizer.drop_factor,
    )
    betas = {
        terms.ATTENTION: config.at.beta,
        terms.ACTIVATION: config.f_actt.beta,
        terms.GRADIENT_AT: config.gradient_at.beta,
        terms.FLIP_SYMMETRY: config.flip_symmetry.beta,
        terms.MIN_L2: config.min_l2.beta,
    }
    boundaries = to_steps(config.transfer.decay_epochs)
    return learning_rate, {
        term: schedules.decay(
            config.transfer.decay,
            betas[term],
            steps,
            boundaries=boundaries,
            factor=config.transfer.decay_factor,
        )
        for term in weighted
    }


def _preparation(
    config: ml_collections.ConfigDict, dataset: data.Dataset
) -> tuple[Prepare, Callable[[jax.Array], jax.Array]]:
    """What happens to images on the device: augmentation and normalisation, and normalisation alone."""
    normalize = functools.partial(data.normalize, mean=dataset.mean, std=dataset.std)
    augment = functools.partial(data.augment, pad=config.data.pad, mirror=config.data.mirror)

    def prepare(key, images, position):
        return normalize(augment(key, images, position))

    return prepare, normalize
