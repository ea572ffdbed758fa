"""Terms on J, the input gradient of the cross-entropy. Training on them differentiates twice."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from at_jax import gradients, maps
from at_jax.options import TEMPERATURES, option
from at_jax.terms.base import Batch, Term
from at_jax.terms.view import View

__all__ = ["FlipSymmetry", "GradientTransfer", "MinL2", "norms"]


def norms(student: jax.Array, teacher: jax.Array | None = None) -> dict[str, jax.Array]:
    """Measures of a term on input gradients ``(B, H, W, C)``: their l2 norms, ``(B,)``."""
    measured = {"gradient_norm_student": maps.l2_norm(student)}
    if teacher is not None:
        measured["gradient_norm_teacher"] = maps.l2_norm(teacher)
    return measured


@dataclasses.dataclass(frozen=True)
class _CrossEntropyGradient(Term, abstract=True):
    """Options of the terms on J, the input gradient of the cross-entropy."""

    squared: bool = option(
        False, "Half the squared l2 norm instead of half the norm; this needs a different weight."
    )
    temperature: float = option(
        1.0,
        "Temperature T of the cross-entropy T * CE(z / T) that is differentiated; 1 in the paper.",
        TEMPERATURES,
    )

    def _gradient(self, view: View) -> jax.Array:
        """J of a network: (B, H, W, C)."""
        return view.gradient(temperature=self.temperature)

    def measures(self, batch: Batch, params: Any) -> dict[str, jax.Array]:
        """Norms of J at the images of the batch: of the student, and of the teacher it is compared with."""
        teacher = self._gradient(batch.teacher) if self.needs_teacher else None
        return norms(self._gradient(batch.student), teacher)


@dataclasses.dataclass(frozen=True)
class GradientTransfer(_CrossEntropyGradient):
    """Gradient-based attention transfer: half the distance between the input gradients J of both networks.

    J of a teacher that has fitted its training images vanishes at temperature 1.
    See :func:`at_jax.gradients.gradient_transfer`.
    """

    name: ClassVar[str] = "gradient_at"
    title: ClassVar[str] = "gradient transfer"
    color: ClassVar[str] = "#CC79A7"
    color_combined: ClassVar[str] = "#7A3E8F"
    needs_equal_classes: ClassVar[bool] = True

    def values(self, batch: Batch, params: Any) -> jax.Array:
        """Compute half the norm of J_S - J_T: (B,)."""
        j_s, j_t = self._gradient(batch.student), self._gradient(batch.teacher)
        return gradients.gradient_transfer(j_s, j_t, squared=self.squared)


@dataclasses.dataclass(frozen=True)
class FlipSymmetry(_CrossEntropyGradient):
    """Symmetry of the student's J under horizontal flips. Applies the student a second time.

    See :func:`at_jax.gradients.flip_symmetry`.
    """

    name: ClassVar[str] = "flip_symmetry"
    title: ClassVar[str] = "flip symmetry"
    color: ClassVar[str] = "#56B4E9"
    needs_teacher: ClassVar[bool] = False

    def values(self, batch: Batch, params: Any) -> jax.Array:
        """Compute half the norm of J(x) - mirror(J(mirror(x))): (B,)."""
        mirrored = batch.student_at(jnp.flip(batch.images, axis=2))
        j, j_flipped = self._gradient(batch.student), self._gradient(mirrored)
        return gradients.flip_symmetry(j, j_flipped, squared=self.squared)


@dataclasses.dataclass(frozen=True)
class MinL2(_CrossEntropyGradient):
    """Double backpropagation (Drucker & LeCun 1992): half the norm of the student's J.

    See :func:`at_jax.gradients.gradient_penalty`.
    """

    name: ClassVar[str] = "min_l2"
    title: ClassVar[str] = "min-l2"
    color: ClassVar[str] = "#A89800"
    needs_teacher: ClassVar[bool] = False

    def values(self, batch: Batch, params: Any) -> jax.Array:
        """Compute half the norm of J: (B,)."""
        return gradients.gradient_penalty(self._gradient(batch.student), squared=self.squared)
