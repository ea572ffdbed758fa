"""Terms on the logits."""

import dataclasses
from typing import Any, ClassVar

import jax

from at_jax import losses
from at_jax.options import TEMPERATURES, between, option
from at_jax.terms.base import Batch, Term

__all__ = ["Distillation"]


@dataclasses.dataclass(frozen=True)
class Distillation(Term):
    """Knowledge distillation (Hinton et al. 2015), in place of the cross-entropy.

    See :func:`at_jax.losses.distillation`.
    """

    name: ClassVar[str] = "kd"
    title: ClassVar[str] = "distillation"
    color: ClassVar[str] = "#0072B2"
    metric: ClassVar[str] = "distillation"
    beta: ClassVar[None] = None
    needs_equal_classes: ClassVar[bool] = True

    temperature: float = option(4.0, "Softmax temperature T.", TEMPERATURES)
    alpha: float = option(
        0.9, "Weight of the soft targets; the labels have weight 1 - alpha.", between(0, 1)
    )

    def values(self, batch: Batch, params: Any) -> jax.Array:
        """Compute alpha T^2 KL(teacher || student) + (1 - alpha) CE: (B,)."""
        return losses.distillation(
            batch.student.logits,
            batch.teacher.logits,
            batch.labels,
            temperature=self.temperature,
            alpha=self.alpha,
        )
