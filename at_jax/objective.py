"""What is minimised: student, teacher and batch to a loss and its terms.

The only place that takes the mean over the batch and that applies weights, one weight a term:

    loss = mean(cross_entropy or distillation) + sum over terms of weight[term] * mean(term)
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax import intermediates, losses

ATTENTION = "attention"
ACTIVATION = "activation"


@dataclasses.dataclass(frozen=True)
class Distillation:
    """Hinton's distillation in place of the cross-entropy.

    Attributes:
      temperature: T > 0.
      alpha: share of the soft targets, 0..1.
    """

    temperature: float = 4.0
    alpha: float = 0.9


@dataclasses.dataclass(frozen=True)
class Attention:
    """Activation-based attention transfer, summed over the transfer points.

    Attributes:
      kind: ``"sum"``, ``"max"`` or ``"channel"``.
      p: the exponent of the maps.
      convention: ``"code"`` or ``"paper"``.
    """

    kind: str = "sum"
    p: float = 2
    convention: str = "code"


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What a forward pass leaves beside the loss.

    Attributes:
      terms: name -> per-example term before its weight, ``(B,)``.
      logits: of the student, ``(B, K)``.
      batch_stats: of the student, moved once.
    """

    terms: dict[str, jax.Array]
    logits: jax.Array
    batch_stats: Any


jax.tree_util.register_dataclass(
    Outputs, data_fields=["terms", "logits", "batch_stats"], meta_fields=[]
)


@dataclasses.dataclass(frozen=True)
class Objective:
    """The terms of one training run. Hashable: all that is static about the loss.

    Attributes:
      student: a linen module, ``module.apply(variables, images, train=...) -> (B, K)``.
      teacher: likewise, or None where nothing is transferred.
      points: pairs (student point, teacher point) at which activations are compared.
      distillation: with it the hard term is :func:`at_jax.losses.distillation`, else cross-entropy.
      attention: with it there is a term ``"attention"``.
      activation: with it there is a term ``"activation"``, full-activation transfer.
      adapter: for ``activation``: brings student activations to the teacher's channels.
    """

    student: nn.Module
    teacher: nn.Module | None = None
    points: tuple[tuple[str, str], ...] = ()
    distillation: Distillation | None = None
    attention: Attention | None = None
    activation: bool = False
    adapter: nn.Module | None = None

    def __post_init__(self):
        if self.teacher is None and (self.distillation or self.weighted_terms):
            raise ValueError(
                "distillation and transfer need a teacher, got None: pass teacher=, a linen module"
            )
        if self.weighted_terms and not self.points:
            raise ValueError(
                f"{' and '.join(self.weighted_terms)} need transfer points, got none: pass points=, pairs "
                "(student point, teacher point)"
            )

    @property
    def weighted_terms(self) -> tuple[str, ...]:
        """The terms that need a weight: all but the hard one."""
        present = ((ATTENTION, self.attention is not None), (ACTIVATION, self.activation))
        return tuple(name for name, is_there in present if is_there)

    def __call__(
        self,
        params: Mapping[str, Any],
        batch_stats: Any,
        teacher_variables: Any,
        images: jax.Array,
        labels: jax.Array,
        weights: Mapping[str, jax.Array],
    ) -> tuple[jax.Array, Outputs]:
        """The loss of a batch.

        Args:
          params: ``{"student": ..., "adapter": ...}``: all that is trained.
          batch_stats: running statistics of the student.
          teacher_variables: of the frozen teacher; None without one.
          images: normalised, ``(B, H, W, C)``.
          labels: ``(B,)``.
          weights: for each of ``weighted_terms`` the beta that multiplies it, scalars.

        Returns:
          The loss, a scalar, and the :class:`Outputs`.

        Raises:
          ValueError: if a network does not tap a transfer point that is asked for.
        """
        # One forward pass of the student: logits, taps and statistics all come from it.
        logits_s, mutated = self.student.apply(
            {"params": params["student"], "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats", intermediates.COLLECTION],
        )
        taps_s = intermediates.collect(mutated)
        logits_t, taps_t = self._teach(teacher_variables, images)

        if self.distillation is None:
            terms = {"cross_entropy": losses.cross_entropy(logits_s, labels)}
        else:
            terms = {
                "distillation": losses.distillation(
                    logits_s, logits_t, labels, **dataclasses.asdict(self.distillation)
                )
            }
        if self.weighted_terms:
            intermediates.check_points((s for s, _ in self.points), taps_s, "student")
            intermediates.check_points((t for _, t in self.points), taps_t, "teacher")
        if self.attention is not None:
            options = dataclasses.asdict(self.attention)
            terms[ATTENTION] = sum(
                losses.attention_transfer(taps_s[s], taps_t[t], **options) for s, t in self.points
            )
        if self.activation:
            adapted = taps_s
            if self.adapter is not None:
                adapted = self.adapter.apply({"params": params["adapter"]}, taps_s)
            terms[ACTIVATION] = sum(
                losses.activation_transfer(adapted[s], taps_t[t]) for s, t in self.points
            )

        loss = sum(weights.get(name, 1) * jnp.mean(term) for name, term in terms.items())
        return loss, Outputs(terms, logits_s, mutated.get("batch_stats", batch_stats))

    def _teach(self, variables: Any, images: jax.Array) -> tuple[jax.Array | None, dict]:
        """The frozen teacher: in eval mode, behind stop_gradient, outside what is differentiated."""
        if self.teacher is None:
            return None, {}
        logits, mutated = self.teacher.apply(
            variables, images, train=False, mutable=[intermediates.COLLECTION]
        )
        return jax.lax.stop_gradient((logits, intermediates.collect(mutated)))
