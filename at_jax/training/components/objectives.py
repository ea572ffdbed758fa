"""Objective of a run: student, teacher, terms and transfer points, checked on shapes."""

import functools
from typing import Any

import flax.linen as nn

from at_jax import data, freezing
from at_jax.errors import UserError, naming
from at_jax.objective import Objective
from at_jax.terms import Term
from at_jax.training.components import compatibility, teacher_images, tracing
from at_jax.training.components.compatibility import Teacher
from at_jax.training.components.tracing import Shapes
from at_jax.training.settings import Settings, TermSettings

__all__ = ["build"]


def build(
    settings: Settings,
    dataset: data.Dataset,
    student: nn.Module,
    teacher: Teacher | None,
    chosen: tuple[TermSettings, ...],
) -> tuple[Objective, Shapes, Shapes | None]:
    """Build the objective of a run.

    Args:
      settings: of the run.
      dataset: of the run.
      student: the network to train.
      teacher: None without one.
      chosen: terms of the loss.

    Returns:
      Objective, and shapes of both networks: of the teacher, None where no term reads it.

    Raises:
      UserError: if networks, data and terms do not fit together.
    """
    terms = tuple(each.term for each in chosen)
    of_student = tracing.shapes(student, dataset.image_shape, "student")
    if of_student.logits.shape != (1, dataset.num_classes):
        raise UserError(
            f"the student must return {dataset.num_classes} logits for {dataset.name}, got shape "
            f"{of_student.logits.shape[1:]}: build it with num_classes={dataset.num_classes}"
        )
    if not of_student.variables.get("params"):
        raise UserError(
            f"the student must have parameters to train, got {type(student).__name__} without any: use it "
            "as a teacher, or add layers"
        )
    with naming("init.freeze", settings.init.freeze):
        freezing.check(settings.init.freeze, of_student.variables["params"])
    if teacher is None or not any(term.needs_teacher for term in terms):
        return Objective(student, terms=terms, freeze=settings.init.freeze), of_student, None
    return _with_teacher(settings, dataset, student, teacher, terms, of_student)


def _with_teacher(
    settings: Settings,
    dataset: data.Dataset,
    student: nn.Module,
    teacher: Teacher,
    terms: tuple[Term, ...],
    of_student: Shapes,
) -> tuple[Objective, Shapes, Shapes]:
    """Build the objective of a student that reads its teacher, and trace captured submodules."""
    images = teacher_images.of_settings(settings.teacher, dataset, teacher.trained_with)
    if teacher.description is not None:
        teacher_images.check(dataset, images, teacher.description)
    shape_t = images.shape if images else dataset.image_shape
    stochastic: dict[str, Any] = {"deterministic": True} if settings.teacher.stochastic else {}
    whose = "teacher (teacher.stochastic=True)" if stochastic else "teacher"
    shapes_t = functools.partial(tracing.shapes, teacher.module, shape_t, whose, **stochastic)
    of_teacher = shapes_t()
    compatibility.check_classes(terms, dataset, teacher, of_teacher)
    if teacher.variables is not None:
        compatibility.check_variables(
            teacher.module,
            teacher.variables,
            of_teacher.variables,
            whose="the teacher",
            fix="pass module and variables of one network, as at_jax.checkpoint.load returns them",
        )
    points: tuple[tuple[str, str], ...] = ()
    if any(term.compares_taps for term in terms):
        texts = settings.transfer.points
        points = compatibility.pair_points(texts, of_student.taps, of_teacher.taps)
    # What is no tap may be the path of a submodule, whose output is captured.
    paths_s = tuple(s for s, _ in points if s not in of_student.taps)
    paths_t = tuple(t for _, t in points if t not in of_teacher.taps)
    if paths_s:
        of_student = tracing.shapes(student, dataset.image_shape, "student", paths_s)
    if paths_t:
        of_teacher = shapes_t(paths=paths_t)
    compatibility.check_points(points, of_student.taps, of_teacher.taps)
    objective = Objective(
        student,
        teacher.module,
        terms=terms,
        points=points,
        paths_s=paths_s,
        paths_t=paths_t,
        stochastic_teacher=settings.teacher.stochastic,
        freeze=settings.init.freeze,
        teacher_images=images,
    )
    return objective, of_student, of_teacher
