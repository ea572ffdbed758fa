"""The training loss: one forward pass of the student, one mean over the batch, one weight per term.

    loss = mean(cross_entropy, or a term that replaces it) + sum over terms of weight * mean(term)

The terms are defined in :mod:`at_jax.terms`; none is named here.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax import freezing, intermediates
from at_jax.checks import check_array, check_normalized
from at_jax.errors import UserError, listed
from at_jax.terms import base
from at_jax.terms.base import Batch, Term, changes_forward_pass
from at_jax.terms.checks import check_params, check_terms, checked_weights
from at_jax.terms.view import View, view_network

__all__ = ["Objective", "Outputs"]

_CROSS_ENTROPY = "cross_entropy"  # metric of the labels


@dataclasses.dataclass(frozen=True, eq=False)  # == of arrays gives an array, not a bool
class Outputs:
    """Results of a forward pass in addition to the loss.

    Attributes:
      terms: metric name to per-example term before its weight, ``(B,)``.
      logits: of the student, ``(B, K)``.
      collections: the student's mutable collections after the pass, such as ``batch_stats``.
      measures: metric name to other values that terms report, ``(B,)``, see :meth:`Term.measures`.
    """

    terms: dict[str, jax.Array]
    logits: jax.Array
    collections: dict[str, Any]
    measures: dict[str, jax.Array]


jax.tree_util.register_dataclass(
    Outputs, data_fields=["terms", "logits", "collections", "measures"], meta_fields=[]
)


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss of one student. Hashable: contains all static parts of the loss; lists become tuples.

    Attributes:
      student: a linen module, ``module.apply(variables, images, train=...) -> (B, K)``.
      teacher: a linen module with the same call signature; None without a teacher.
      terms: of the loss. The cross-entropy is added unless one of them replaces it.
      points: pairs (student point, teacher point) at which terms compare activations.
      paths_s: submodules of the student whose output is captured as a transfer point.
      paths_t: submodules of the teacher whose output is captured as a transfer point.
      stochastic_teacher: apply the teacher with ``deterministic=False`` and the student's random numbers.
      freeze: modules of the student that are not trained, see :mod:`at_jax.freezing`.
      teacher_images: from normalized images to those of the teacher; None for the same. Hashable.
    """

    student: nn.Module
    teacher: nn.Module | None = None
    terms: tuple[Term, ...] = ()
    points: tuple[tuple[str, str], ...] = ()
    paths_s: tuple[str, ...] = ()
    paths_t: tuple[str, ...] = ()
    stochastic_teacher: bool = False
    freeze: tuple[str, ...] = ()
    teacher_images: Callable[[jax.Array], jax.Array] | None = None

    def __post_init__(self) -> None:
        for name in ("terms", "points", "paths_s", "paths_t", "freeze"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "points", tuple(map(tuple, self.points)))
        check_terms(self.terms, has_teacher=self.teacher is not None, has_points=bool(self.points))

    @property
    def weighted_terms(self) -> tuple[str, ...]:
        """Names of the terms that need a weight."""
        return tuple(term.name for term in self.terms if term.beta is not None)

    def modules(self, taps_s: Mapping[str, Any], taps_t: Mapping[str, Any]) -> dict[str, nn.Module]:
        """Modules of the terms that have trainable parameters, by term name; see :meth:`Term.module`."""
        made = {term.name: term.module(self.points, taps_s, taps_t) for term in self.terms}
        return {name: module for name, module in made.items() if module is not None}

    def __call__(
        self,
        params: Mapping[str, Any],
        collections: Mapping[str, Any],
        teacher: Any,
        images: jax.Array,
        labels: jax.Array,
        weights: Mapping[str, Any] | None = None,
        keys: jax.Array | None = None,
    ) -> tuple[jax.Array, Outputs]:
        """Compute the loss of a batch.

        Args:
          params: ``{"student": ..., <term>: ...}``: all trained parameters.
          collections: the student's other collections, such as ``batch_stats``.
          teacher: variables of the frozen teacher, None without one; or the result of :meth:`view_teacher`
            for these images, if several students share one forward pass.
          images: normalized, ``(B, H, W, C)``.
          labels: integers ``(B,)``, or soft labels ``(B, K)``, see :func:`at_jax.losses.cross_entropy`.
          weights: beta of each of ``weighted_terms``, scalars; None for their defaults, ``term.beta``. A
            weight w of a term that replaces the cross-entropy mixes the two: w * term + (1 - w) *
            cross-entropy; without it, w is 1.
          keys: PRNG keys ``(B,)``, for random terms and for dropout.

        Returns:
          The scalar loss, and the :class:`Outputs`.

        Raises:
          UserError: for a missing point or weight, a weight without a term, different classes, or images
            that are not floating point.
        """
        check_params(params)
        check_array("Objective", images=images)
        check_normalized("Objective", images)
        weights = checked_weights(self.terms, weights)
        if not isinstance(teacher, View):
            teacher = self.view_teacher(teacher, images, labels, keys)

        trained = freezing.stopped(params["student"], self.freeze)
        variables = {"params": trained, **collections}

        def student_at(images: jax.Array) -> View:
            return view_network(
                self.student, variables, images, labels, paths=self.paths_s, train=True,
                mutable=tuple(collections), keys=keys, freeze=self.freeze,
                **self._forward_inputs(teacher, images),
            )  # fmt: skip

        student = student_at(images)
        batch = Batch(images, labels, keys, student, teacher, self.points, student_at)
        self._check_points(batch)
        self._check_classes(batch)
        metrics: dict[str, jax.Array] = {}
        loss: Any = 0.0
        for metric, weight, values in self._weighted(batch, params, weights):
            metrics[metric] = values
            loss = loss + weight * jnp.mean(values)
        updated = freezing.restored(student.mutated, collections, self.freeze)
        measures = base.measures_of(self.terms, batch, params)
        return loss, Outputs(metrics, student.logits, updated, measures)

    def _weighted(self, batch: Batch, params: Mapping[str, Any], weights: Mapping[str, jax.Array]):
        """Yield (metric, weight, values): the cross-entropy or its replacement first."""
        replacing = [term for term in self.terms if term.beta is None]
        if not replacing:
            yield _CROSS_ENTROPY, 1, batch.student.cross_entropy
        for term in replacing:
            share = weights.get(term.name, 1)
            yield term.metric, share, base.values_of(term, batch, params)
            if term.name in weights:
                yield _CROSS_ENTROPY, 1 - share, batch.student.cross_entropy
        for term in self.terms:
            if term.beta is not None:
                yield term.metric, weights[term.name], base.values_of(term, batch, params)

    def _check_points(self, batch: Batch) -> None:
        if any(term.compares_taps for term in self.terms):
            intermediates.check_points((s for s, _ in self.points), batch.student.taps, "student")
            intermediates.check_points((t for _, t in self.points), batch.teacher.taps, "teacher")

    def _check_classes(self, batch: Batch) -> None:
        needing = [term.name for term in self.terms if term.needs_equal_classes]
        shapes = {
            view.logits.shape for view in (batch.student, batch.teacher_view) if view is not None
        }
        if needing and len(shapes) > 1:
            raise UserError(
                f"for {listed(needing)}, student and teacher must have the same classes, got logits "
                f"of shape {listed(sorted(shapes))}: build both with the same num_classes"
            )

    def view_teacher(
        self, variables: Any, images: jax.Array, labels: jax.Array, keys: jax.Array | None = None
    ) -> View | None:
        """Apply the frozen teacher in evaluation mode, without gradients; None without a teacher.

        Args:
          variables: of the teacher.
          images: normalized, ``(B, H, W, C)``.
          labels: integers ``(B,)``, or soft labels ``(B, K)``, see :func:`at_jax.losses.cross_entropy`.
          keys: ``(B,)``, for a stochastic teacher; without them it is deterministic.
        """
        if self.teacher is None:
            return None
        stochastic: dict[str, Any] = {"deterministic": keys is None, "keys": keys}
        return view_network(
            self.teacher, variables, images, labels, paths=self.paths_t, train=False,
            frozen=True, prepare=self.teacher_images,
            **(stochastic if self.stochastic_teacher else {}),
        )  # fmt: skip

    def _forward_inputs(self, teacher: View | None, images: jax.Array) -> dict[str, Any]:
        inputs: dict[str, Any] = {}
        if teacher is not None and changes_forward_pass(self.terms):
            view = teacher.at(images)  # one pass for all terms
            for term in self.terms:
                inputs |= term.forward_inputs(view)
        return inputs

    def forward_inputs(self, teacher_variables: Any, images: jax.Array) -> dict[str, Any]:
        """Compute the keyword arguments that terms pass to the student; see :meth:`Term.forward_inputs`.

        Args:
          teacher_variables: of the teacher; None gives no arguments.
          images: normalized, ``(B, H, W, C)``.
        """
        if teacher_variables is None:
            return {}
        labels = jnp.zeros(images.shape[:1], jnp.int32)
        teacher = self.view_teacher(teacher_variables, images, labels)
        return self._forward_inputs(teacher, images)

    def predict(
        self, variables: Mapping[str, Any], teacher_variables: Any, images: jax.Array
    ) -> jax.Array:
        """Compute the student's logits ``(B, K)`` in evaluation mode.

        Args:
          variables: of the student, all collections.
          teacher_variables: of the teacher, for terms that change the student's forward pass; or None.
          images: normalized, ``(B, H, W, C)``.
        """
        inputs = self.forward_inputs(teacher_variables, images)
        # Some modules update other collections in evaluation mode too; the update is discarded.
        logits, _, _ = intermediates.forward(self.student, variables, images, train=False, **inputs)
        return logits
