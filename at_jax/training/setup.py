"""From settings to the components of a run.

Problems with a pair of networks, or with networks and data, are found here: before anything compiles and
before a teacher is trained.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from at_jax import data
from at_jax.distributed import devices
from at_jax.errors import UserError
from at_jax.objective import Objective
from at_jax.terms import changes_forward_pass
from at_jax.training import compatibility, memory, modules, networks, optimizers
from at_jax.training.arguments import Arguments, chosen_terms
from at_jax.training.compatibility import Shapes, Teacher
from at_jax.training.config import Settings, TermSettings
from at_jax.training.datasets import train_batches
from at_jax.training.preprocessing import preprocessing
from at_jax.training.state import carried_collections
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
      other_classes: the first class in which teacher and data differ; None if their classes are the same.
      optimizer: with its schedule.
      learning_rate: step -> rate.
      weights: term -> (step -> weight).
      batches: of the training images.
      steps: updates of the whole run.
      prepare_train: augmentation and normalization.
      prepare_eval: normalization.
      taps: shapes of the student's activations.
      parameters: number of trained numbers of the student.
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
    other_classes: str | None
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
        """Updates of an epoch."""
        return self.batches.steps_per_epoch

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
) -> Run:
    """Build the components of a run, and trace its loss on shapes so that every error is raised here.

    Args:
      settings: checked.
      dataset: of the run.
      student: the network to train.
      name: its name for :func:`at_jax.models.build`; empty for a user-defined module.
      teacher: None without one; without variables the result serves as a check.
      arguments: passed by the user.

    Returns:
      The components.

    Raises:
      UserError: if networks, data and terms do not fit together.
    """
    batches = train_batches(settings, dataset)
    chosen = chosen_terms(settings, arguments)
    objective, of_student, of_teacher = _objective(settings, dataset, student, teacher, chosen)
    term_modules = objective.modules(of_student.taps, of_teacher.taps if of_teacher else {})
    learning_rate = optimizers.learning_rate(settings, batches.steps_per_epoch)
    prepare, normalize = preprocessing(settings, dataset, arguments)
    _trace(prepare, objective, term_modules, of_student, of_teacher, settings, dataset)
    if hasattr(student, "bn_axis_name"):
        synchronized = student.clone(bn_axis_name=devices.AXIS_NAME)
        objective = dataclasses.replace(objective, student=synchronized)
    if arguments.optimizer is not None:
        optimizer = optax.with_extra_args_support(arguments.optimizer(learning_rate))
    else:
        optimizer = optimizers.build(settings.optimizer, learning_rate)
    passed = "+".join(each.term.name for each in chosen)
    return Run(
        settings=settings,
        method=settings.method if arguments.terms is None else passed or "none",
        dataset=dataset,
        objective=objective,
        modules=term_modules,
        teacher=teacher if of_teacher else None,
        other_classes=compatibility.other_classes(dataset, teacher, of_teacher),
        optimizer=optimizer,
        learning_rate=learning_rate,
        weights=optimizers.term_weights(settings, batches.steps_per_epoch, chosen),
        batches=batches,
        steps=settings.epochs * batches.steps_per_epoch,
        prepare_train=prepare,
        prepare_eval=normalize,
        taps=of_student.taps,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(of_student.variables["params"])),
        has_statistics=bool(of_student.variables.get("batch_stats")),
        name=name or type(student).__name__,
        description=networks.describe(settings, dataset, student, name, objective.terms),
    )


def _objective(
    settings: Settings,
    dataset: data.Dataset,
    student: nn.Module,
    teacher: Teacher | None,
    chosen: tuple[TermSettings, ...],
) -> tuple[Objective, Shapes, Shapes | None]:
    """Objective, and shapes of both networks."""
    terms = tuple(each.term for each in chosen)
    image_shape = dataset.image_shape
    of_student = compatibility.shapes(student, image_shape, "student")
    if of_student.logits.shape != (1, dataset.num_classes):
        raise UserError(
            f"the student must return {dataset.num_classes} logits for {dataset.name}, got shape "
            f"{of_student.logits.shape[1:]}: build it with num_classes={dataset.num_classes}"
        )
    if teacher is None or not any(term.needs_teacher for term in terms):
        return Objective(student, terms=terms), of_student, None
    stochastic: dict[str, Any] = {"deterministic": True} if settings.teacher.stochastic else {}
    whose = "teacher (teacher.stochastic=True)" if stochastic else "teacher"
    of_teacher = compatibility.shapes(teacher.module, image_shape, whose, **stochastic)
    compatibility.check_classes(terms, dataset, teacher, of_teacher)
    if teacher.description is not None:
        compatibility.check_images(dataset, teacher.description)
    if teacher.variables is not None:
        compatibility.check_variables(
            teacher.module,
            teacher.variables,
            of_teacher.variables,
            whose="the teacher",
            fix="pass module and variables of one network, as at_jax.checkpoint.load returns them",
        )
    pairs: tuple[tuple[str, str], ...] = ()
    paths_s: tuple[str, ...] = ()
    paths_t: tuple[str, ...] = ()
    if any(term.compares_taps for term in terms):
        pairs = compatibility.pair_points(
            settings.transfer.points, of_student.taps, of_teacher.taps
        )
        # What is no tap may be the path of a submodule, whose output is captured.
        paths_s = tuple(s for s, _ in pairs if s not in of_student.taps)
        paths_t = tuple(t for _, t in pairs if t not in of_teacher.taps)
        if paths_s:
            of_student = compatibility.shapes(student, image_shape, "student", paths_s)
        if paths_t:
            of_teacher = compatibility.shapes(
                teacher.module, image_shape, "teacher", paths_t, **stochastic
            )
        compatibility.check_points(pairs, of_student.taps, of_teacher.taps)
    objective = Objective(
        student, teacher.module, terms, pairs, paths_s, paths_t, settings.teacher.stochastic
    )
    return objective, of_student, of_teacher


def _trace(prepare, objective, term_modules, of_student, of_teacher, settings, dataset) -> None:
    """Check the memory, then trace augmentation and loss, all on shapes alone."""
    memory.check(settings, dataset.image_shape, of_student, of_teacher)
    size = settings.batch_size
    labels = jax.ShapeDtypeStruct((size,), jnp.int32)
    pixels = jax.ShapeDtypeStruct((size, *dataset.image_shape), jnp.uint8)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), size))
    images = jax.eval_shape(prepare, jax.random.key(0), pixels, labels)
    weights = dict.fromkeys(objective.weighted_terms, jax.ShapeDtypeStruct((), jnp.float32))
    params = {"student": of_student.variables["params"]}
    for name, module in term_modules.items():
        params[name] = jax.eval_shape(module.init, jax.random.key(0), of_student.taps)["params"]
    collections = carried_collections(of_student.variables)
    variables_t = of_teacher.variables if of_teacher else None
    with modules.translated_errors(objective.student, "student"):
        jax.eval_shape(objective, params, collections, variables_t, images, labels, weights, keys)
