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
from at_jax.terms import checks, evaluation, networks, parameters
from at_jax.terms.base import Batch, Term, changes_forward_pass
from at_jax.terms.view import View
from at_jax.terms.weights import checked_weights

__all__ = ["Objective", "Outputs"]


@dataclasses.dataclass(frozen=True, eq=False)  # == of arrays gives an array, not a bool
class Outputs:
    """Results of a forward pass in addition to the loss.

    Attributes:
      terms: metric (``"attention"`` for the term ``at``) to per-example term before its weight, ``(B,)``.
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

    Call it: ``loss, outputs = objective(params, collections, teacher, images, labels, weights, keys)``, see
    :meth:`__call__`.

    Attributes:
      student: a linen module, ``module.apply(variables, images, train=...) -> (B, K)``.
      teacher: a linen module with the same call signature; None without a teacher.
      terms: of the loss, without weights. The cross-entropy is added unless one of them replaces it.
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
        networks.check_is_module(self.student, "student")
        if self.teacher is not None:
            networks.check_is_module(self.teacher, "teacher")
        object.__setattr__(self, "terms", checks.checked_terms(self.terms))
        object.__setattr__(self, "points", checks.checked_points(self.points))
        for name in ("paths_s", "paths_t", "freeze"):
            object.__setattr__(self, name, checks.checked_names(name, getattr(self, name)))
        checks.check_terms(
            self.terms, has_teacher=self.teacher is not None, has_points=bool(self.points)
        )

    @property
    def weighted_terms(self) -> tuple[str, ...]:
        """Names of the terms that need a weight."""
        return tuple(term.name for term in self.terms if term.beta is not None)

    def modules(self, taps_s: Mapping[str, Any], taps_t: Mapping[str, Any]) -> dict[str, nn.Module]:
        """Modules of the terms that have trainable parameters, by term name; see :meth:`Term.module`."""
        return parameters.modules_of(self.terms, self.points, taps_s, taps_t)

    def init_params(
        self, key: jax.Array, student: Mapping[str, Any], teacher: Any, images: jax.Array
    ) -> dict[str, Any]:
        """Initialize the parameters of terms that have modules, such as the adapter of F-ActT.

        Args:
          key: PRNG key.
          student: its variables.
          teacher: variables of the teacher, None without one.
          images: normalized, ``(B, H, W, C)``; only their shape and dtype are used.

        Returns:
          ``{"student": student["params"], <term>: ...}``, the ``params`` of a call.

        Raises:
          UserError: for a missing teacher, or points that a term cannot compare.
        """
        checks.check_images(images)

        def taps() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
            labels = jnp.zeros(images.shape[:1], jnp.int32)
            view_t = self.view_teacher(teacher, images, labels)
            inputs = self._forward_inputs(view_t, images)
            view_s = networks.view(
                "student", self.student, student, images, labels,
                paths=self.paths_s, train=False, mutable=None, **inputs,
            )  # fmt: skip
            return view_s.taps, view_t.taps if view_t else {}

        taps_s, taps_t = jax.eval_shape(taps)
        of_terms = parameters.initialize(self.modules(taps_s, taps_t), key, taps_s)
        return {"student": student["params"], **of_terms}

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
          weights: beta of each of ``weighted_terms``, by name (``"at"``): scalars from 0, possibly traced;
            None for their defaults, ``term.beta``. A term of weight 0 is computed, and is NaN if its values
            are: leave it out of ``terms`` instead. A weight w from 0 to 1 of a term that replaces the
            cross-entropy mixes the two: w * term + (1 - w) * cross-entropy; without it, w is 1.
          keys: PRNG keys ``(B,)``, for random terms and for dropout.

        Returns:
          The scalar loss, and the :class:`Outputs`.

        Raises:
          UserError: for a missing point, weight or parameter, one without a term, different classes, images
            that are not floating point ``(B, H, W, C)``, variables of another network, a network or a term
            that cannot be called, or a wrong number of keys.
        """
        checks.check_arguments(params, collections, images, keys, self.freeze)
        weights = checked_weights(self.terms, weights)
        if not isinstance(teacher, View):
            teacher = self.view_teacher(teacher, images, labels, keys)

        trained = freezing.stopped(params["student"], self.freeze)
        variables = {"params": trained, **collections}

        def student_at(images: jax.Array) -> View:
            return networks.view(
                "student", self.student, variables, images, labels, paths=self.paths_s, train=True,
                mutable=tuple(collections), keys=keys, freeze=self.freeze,
                **self._forward_inputs(teacher, images),
            )  # fmt: skip

        student = student_at(images)
        batch = Batch(images, labels, keys, student, teacher, self.points, student_at)
        checks.check_batch(self.terms, batch)
        taps_t = teacher.taps if teacher else {}
        checks.check_term_params(params, self.modules(student.taps, taps_t))
        loss, values = evaluation.weighted_sum(self.terms, batch, params, weights)
        updated = freezing.restored(student.mutated, collections, self.freeze)
        measures = evaluation.measures_of(self.terms, batch, params)
        return loss, Outputs(values, student.logits, updated, measures)

    def view_teacher(
        self, variables: Any, images: jax.Array, labels: jax.Array, keys: jax.Array | None = None
    ) -> View | None:
        """Apply the frozen teacher in evaluation mode, without gradients; None without a teacher.

        A view cannot leave a transformation: call this and the objective within the same ``jax.jit``.

        Args:
          variables: of the teacher.
          images: normalized, ``(B, H, W, C)``.
          labels: integers ``(B,)``, or soft labels ``(B, K)``, see :func:`at_jax.losses.cross_entropy`.
          keys: ``(B,)``, for a stochastic teacher; without them it is deterministic.

        Raises:
          UserError: if variables are missing.
        """
        if self.teacher is None:
            return None
        networks.check_teacher(self.teacher, variables)
        stochastic: dict[str, Any] = {"deterministic": keys is None, "keys": keys}
        view = networks.view(
            "teacher", self.teacher, variables, images, labels, paths=self.paths_t, train=False,
            mutable=None,  # some modules update collections in evaluation mode too; discarded
            frozen=True, prepare=self.teacher_images,
            **(stochastic if self.stochastic_teacher else {}),
        )  # fmt: skip
        networks.check_complete(self.teacher, variables, view.mutated)
        return view

    def _forward_inputs(self, teacher: View | None, images: jax.Array) -> dict[str, Any]:
        if teacher is None or not changes_forward_pass(self.terms):
            return {}
        return evaluation.forward_inputs_of(self.terms, teacher.at(images))  # one pass for all

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
        with networks.explained("student", self.student, variables, images):
            forward = intermediates.forward(self.student, variables, images, train=False, **inputs)
        return forward[0]
