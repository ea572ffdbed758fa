"""What is minimised: student, teacher and batch to a loss and its terms.

The only place that takes the mean over the batch and that applies weights, one weight a term:

    loss = mean(cross_entropy or distillation) + sum over terms of weight[term] * mean(term)
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax import gradients, intermediates, losses
from at_jax.terms import (
    ACTIVATION,
    ATTENTION,
    FLIP_SYMMETRY,
    GRADIENT_AT,
    MIN_L2,
    Attention,
    Distillation,
    InputGradient,
)


class Taught(NamedTuple):
    """What the frozen teacher says of a batch; no gradient goes through it.

    Attributes:
      logits: ``(B, K)``; None without a teacher.
      taps: transfer point -> ``(B, H, W, C)``.
      input_gradient: J ``(B, H, W, C)``, where a term asks for it.
    """

    logits: jax.Array | None
    taps: dict[str, jax.Array]
    input_gradient: jax.Array | None


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
      gradient_at: with it there is a term ``"gradient_at"``, between J of student and teacher.
      flip_symmetry: with it a term ``"flip_symmetry"``, between the student's J at an image and at its
        mirror image; needs no teacher, and applies the student a second time.
      min_l2: with it a term ``"min_l2"``, on the student's J alone; needs no teacher.
    """

    student: nn.Module
    teacher: nn.Module | None = None
    points: tuple[tuple[str, str], ...] = ()
    distillation: Distillation | None = None
    attention: Attention | None = None
    activation: bool = False
    adapter: nn.Module | None = None
    gradient_at: InputGradient | None = None
    flip_symmetry: InputGradient | None = None
    min_l2: InputGradient | None = None

    def __post_init__(self):
        if self.teacher is None and (self.distillation or self._compares or self.gradient_at):
            raise ValueError(
                "distillation and transfer need a teacher, got None: pass teacher=, a linen module"
            )
        if self._compares and not self.points:
            raise ValueError(
                f"{' and '.join(self._compares)} need transfer points, got none: pass points=, pairs "
                "(student point, teacher point)"
            )

    @property
    def _compares(self) -> tuple[str, ...]:
        """The terms that compare activations at transfer points."""
        present = ((ATTENTION, self.attention is not None), (ACTIVATION, self.activation))
        return tuple(name for name, is_there in present if is_there)

    @property
    def _differentiates(self) -> tuple[str, ...]:
        """The terms on the student's input gradient."""
        names = (GRADIENT_AT, FLIP_SYMMETRY, MIN_L2)
        return tuple(name for name in names if getattr(self, name) is not None)

    @property
    def weighted_terms(self) -> tuple[str, ...]:
        """The terms that need a weight: all but the hard one."""
        return (*self._compares, *self._differentiates)

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
          teacher_variables: of the frozen teacher, None without one; or what :meth:`teach` gave for these
            images, where several students share one pass of it.
          images: normalised, ``(B, H, W, C)``.
          labels: ``(B,)``.
          weights: for each of ``weighted_terms`` the beta that multiplies it, scalars; others are ignored.

        Returns:
          The loss, a scalar, and the :class:`Outputs`.

        Raises:
          ValueError: if a network does not tap a transfer point that is asked for, a term has no
            weight, or the images are not floating point.
        """
        self._check_weights(weights)

        def forward(images):
            logits, mutated = self.student.apply(
                {"params": params["student"], "batch_stats": batch_stats},
                images,
                train=True,
                mutable=["batch_stats", intermediates.COLLECTION],
            )
            return losses.cross_entropy(logits, labels), (logits, mutated)

        # One forward pass of the student: logits, taps, statistics and J all come from it, so that the
        # cotangents of all terms meet at the logits and one final backward pass serves them all. XLA
        # does not merge the backward passes of two forward ones.
        (hard, (logits_s, mutated)), j_s = _apply(
            forward, images, input_gradient=bool(self._differentiates)
        )
        taps_s = intermediates.collect(mutated)
        taught = teacher_variables
        if not isinstance(taught, Taught):
            taught = self.teach(teacher_variables, images, labels)

        hard_term = "cross_entropy"
        if self.distillation is not None:
            hard_term = "distillation"
            options = dataclasses.asdict(self.distillation)
            hard = losses.distillation(logits_s, taught.logits, labels, **options)
        terms = {hard_term: hard}
        if self._compares:
            terms |= self._compared(params, taps_s, taught.taps)
        if self._differentiates:
            terms |= self._differentiated(forward, images, j_s, taught.input_gradient)
        weights = dict(weights) | {hard_term: 1}
        loss = sum(weights[name] * jnp.mean(term) for name, term in terms.items())
        return loss, Outputs(terms, logits_s, mutated.get("batch_stats", batch_stats))

    def _check_weights(self, weights: Mapping[str, Any]) -> None:
        if missing := [name for name in self.weighted_terms if name not in weights]:
            raise ValueError(
                f"every term needs its weight, got none for {', '.join(missing)}: "
                f"pass weights={{{missing[0]!r}: beta}}"
            )

    def _compared(self, params: Mapping[str, Any], taps_s: dict, taps_t: dict) -> dict:
        """The terms that compare activations, summed over the transfer points."""
        intermediates.check_points((s for s, _ in self.points), taps_s, "student")
        intermediates.check_points((t for _, t in self.points), taps_t, "teacher")
        terms = {}
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
        return terms

    def _differentiated(self, forward, images: jax.Array, j_s, j_t) -> dict:
        """The terms on input gradients; ``forward`` is the student's pass."""
        terms = {}
        if self.gradient_at is not None:
            options = dataclasses.asdict(self.gradient_at)
            terms[GRADIENT_AT] = gradients.gradient_transfer(j_s, j_t, **options)
        if self.flip_symmetry is not None:
            # The one term that applies the student again; statistics of that pass are dropped.
            _, j_flipped = _apply(forward, jnp.flip(images, axis=2), input_gradient=True)
            options = dataclasses.asdict(self.flip_symmetry)
            terms[FLIP_SYMMETRY] = gradients.flip_symmetry(j_s, j_flipped, **options)
        if self.min_l2 is not None:
            terms[MIN_L2] = gradients.gradient_penalty(j_s, **dataclasses.asdict(self.min_l2))
        return terms

    def teach(self, variables: Any, images: jax.Array, labels: jax.Array) -> Taught:
        """The frozen teacher: in eval mode, behind stop_gradient, outside what is differentiated.

        Args:
          variables: of the teacher.
          images: normalised, ``(B, H, W, C)``.
          labels: ``(B,)``, for J.

        Returns:
          What it says; J only where a term asks for it.
        """
        if self.teacher is None:
            return Taught(None, {}, None)

        def forward(images):
            logits, mutated = self.teacher.apply(
                variables, images, train=False, mutable=[intermediates.COLLECTION]
            )
            return losses.cross_entropy(logits, labels), (logits, intermediates.collect(mutated))

        wanted = self.gradient_at is not None
        (_, (logits, taps)), j = _apply(forward, images, input_gradient=wanted)
        return Taught(*jax.lax.stop_gradient((logits, taps, j)))


def _apply(forward, images: jax.Array, *, input_gradient: bool):
    """What ``forward`` gives, and J = d(sum of its losses) / d(images) where that is wanted."""
    if input_gradient:
        return gradients.value_and_input_gradient(forward, images, has_aux=True)
    return forward(images), None
