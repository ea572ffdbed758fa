"""Components of a run, built from its settings.

Problems with a pair of networks, or with networks and data, are found here: before anything compiles and
before a teacher is trained.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from at_jax import data, freezing
from at_jax.distributed import devices
from at_jax.errors import UserError, listed
from at_jax.objective import Objective
from at_jax.terms import changes_forward_pass
from at_jax.training.components import (
    compatibility,
    memory,
    modules,
    networks,
    objectives,
    optimizers,
)
from at_jax.training.components.arguments import Arguments, chosen_terms
from at_jax.training.components.compatibility import Teacher
from at_jax.training.components.datasets import train_batches
from at_jax.training.components.initialization import Initial
from at_jax.training.components.tracing import Shapes
from at_jax.training.preprocessing import preprocessing
from at_jax.training.settings import Settings
from at_jax.training.state import carried_collections, parameter_count
from at_jax.training.step import Prepare, StudentSpec

__all__ = ["Run", "assemble"]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """Components of one run, ready to be compiled.

    Attributes:
      settings: of the run.
      method: names of the terms, as in ``at+kd``.
      dataset: with the chosen training images.
      objective: student, teacher, terms.
      modules: trainable modules of the terms, by term name.
      teacher: None without one.
      initial: weights that the student starts from; None for random ones.
      other_classes: the first class in which teacher and data differ; None if their classes are the same.
      optimizer: with its schedule.
      learning_rate: step -> rate.
      reads_rate: whether the optimizer uses it; one of the user may have its own.
      weights: term -> (step -> weight).
      batches: of the training images.
      prepare_train: augmentation and normalization.
      prepare_eval: normalization.
      taps: shapes of the student's activations.
      parameters: of the student, their number.
      frozen: number of those that are not trained.
      has_statistics: whether the student normalizes by the batch.
      name: of the student: for :func:`at_jax.models.build`, or the class of a user-defined module.
      description: JSON in the student's checkpoints, with which a later run uses it: ``name`` (empty for a
        user-defined module), ``module`` (its record), ``num_classes``, ``class_names``, ``image_shape``
        (H, W, C), ``mean`` and ``std`` of the normalization (per channel, 0..255), ``bit_depth`` of 16-bit
        image files, ``resize`` (see ``Dataset.resize``),
        ``dtype``, ``needs_forward_inputs`` (whether a term passes the student inputs from the teacher).
    """

    settings: Settings
    method: str
    dataset: data.Dataset
    objective: Objective
    modules: dict[str, nn.Module]
    teacher: Teacher | None
    initial: Initial | None
    other_classes: str | None
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    reads_rate: bool
    weights: dict[str, optax.Schedule]
    batches: data.TrainBatches
    prepare_train: Prepare
    prepare_eval: Callable[[jax.Array], jax.Array]
    taps: dict[str, jax.ShapeDtypeStruct]
    parameters: int
    frozen: int
    has_statistics: bool
    name: str
    description: dict[str, Any]

    @property
    def steps_per_epoch(self) -> int:
        """Updates of an epoch."""
        return self.batches.steps_per_epoch

    @property
    def steps(self) -> int:
        """Updates of the whole run."""
        return self.settings.epochs * self.steps_per_epoch

    @property
    def student_spec(self) -> StudentSpec:
        """Static parts of the student's update."""
        return StudentSpec(self.objective, self.optimizer, self.weights)

    @property
    def evaluates_with_teacher(self) -> bool:
        """Whether a term changes the student's forward pass."""
        return changes_forward_pass(self.objective.terms)


def assemble(
    settings: Settings,
    dataset: data.Dataset,
    student: nn.Module,
    name: str,
    teacher: Teacher | None,
    arguments: Arguments,
    initial: Initial | None = None,
) -> Run:
    """Build the components of a run, and trace its loss on shapes so that every error is raised here.

    Args:
      settings: checked.
      dataset: of the run.
      student: the network to train.
      name: its name for :func:`at_jax.models.build`; empty for a user-defined module.
      teacher: None without one; without variables the result serves as a check.
      arguments: passed by the user.
      initial: weights that the student starts from; None for random ones.

    Returns:
      The components.

    Raises:
      UserError: if networks, data and terms do not fit together.
    """
    batches = train_batches(settings, dataset)
    terms = chosen_terms(settings, arguments)
    objective, of_student, of_teacher = objectives.build(settings, dataset, student, teacher, terms)
    term_modules = objective.modules(of_student.taps, of_teacher.taps if of_teacher else {})
    learning_rate = optimizers.learning_rate(settings, batches.steps_per_epoch)
    prepare, normalize = preprocessing(settings, dataset, arguments)
    memory.check(settings, dataset.image_shape, of_student, of_teacher)
    params = _params(term_modules, of_student)
    _trace(objective, prepare, settings.batch_size, dataset, params, of_student, of_teacher)
    optimizer, reads_rate = _optimizer(settings, learning_rate, arguments, params)
    passed = "+".join(each.term.name for each in terms)
    return Run(
        settings=settings,
        method=settings.method if arguments.terms is None else passed or "none",
        dataset=dataset,
        objective=_synchronized(objective),
        modules=term_modules,
        teacher=teacher if of_teacher else None,
        initial=initial,
        other_classes=compatibility.other_classes(dataset, teacher, of_teacher),
        optimizer=optimizer,
        learning_rate=learning_rate,
        reads_rate=reads_rate,
        weights=optimizers.term_weights(settings, batches.steps_per_epoch, terms),
        batches=batches,
        prepare_train=prepare,
        prepare_eval=normalize,
        taps=of_student.taps,
        parameters=parameter_count(params["student"]),
        frozen=freezing.count(params["student"], settings.init.freeze),
        has_statistics=bool(of_student.variables.get("batch_stats")),
        name=name or type(student).__name__,
        description=networks.describe(settings, dataset, student, name, objective.terms),
    )


def _synchronized(objective: Objective) -> Objective:
    """Average the batch statistics of the student over devices."""
    if not hasattr(objective.student, "bn_axis_name"):
        return objective
    student = objective.student.clone(bn_axis_name=devices.AXIS_NAME)
    return dataclasses.replace(objective, student=student)


def _optimizer(
    settings: Settings, learning_rate: optax.Schedule, arguments: Arguments, params: Any
) -> tuple[optax.GradientTransformation, bool]:
    """The optimizer, and whether it reads the learning rate."""
    if arguments.optimizer is not None:
        optimizer, reads_rate = optimizers.from_factory(arguments.optimizer, learning_rate, params)
    else:
        optimizer, reads_rate = optimizers.build(settings.optimizer, learning_rate), True
    return optimizers.without(optimizer, settings.init.freeze), reads_rate


def _params(term_modules: Mapping[str, nn.Module], of_student: Shapes) -> dict[str, Any]:
    """Shapes of all parameters that are trained, as in :class:`at_jax.training.state.TrainState`."""
    params = {"student": of_student.variables["params"]}
    for name, module in term_modules.items():
        variables = jax.eval_shape(module.init, jax.random.key(0), of_student.taps)
        if others := variables.keys() - {"params"}:
            raise UserError(
                f"term {name}: its module must have parameters only, got also {listed(sorted(others))}: "
                "leave out batch normalization and other state"
            )
        params[name] = variables["params"]
    return params


def _trace(
    objective: Objective,
    prepare: Prepare,
    size: int,
    dataset: data.Dataset,
    params: Mapping[str, Any],
    of_student: Shapes,
    of_teacher: Shapes | None,
) -> None:
    """Trace augmentation and loss on the shapes of a batch of ``size`` images."""
    labels = jax.ShapeDtypeStruct((size,), jnp.int32)
    pixels = jax.ShapeDtypeStruct((size, *dataset.image_shape), jnp.uint8)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), size))
    images = jax.eval_shape(prepare, jax.random.key(0), pixels, labels)
    weights = dict.fromkeys(objective.weighted_terms, jax.ShapeDtypeStruct((), jnp.float32))
    collections = carried_collections(of_student.variables)
    variables_t = of_teacher.variables if of_teacher else None
    with modules.translated_errors(objective.student, "student"):
        _, outputs = jax.eval_shape(
            objective, params, collections, variables_t, images, labels, weights, keys
        )
    if changed := optimizers.differing(collections, outputs.collections):
        raise UserError(
            f"student {type(objective.student).__name__} must keep the types of its collections, got "
            f"{changed} after a training step: initialize it with the type that it has later"
        )
