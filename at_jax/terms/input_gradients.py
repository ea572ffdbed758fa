"""Terms on gradients with respect to the images. Training on them differentiates twice."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from at_jax import gradients, losses, maps
from at_jax.errors import UserError, listed
from at_jax.options import TEMPERATURES, option
from at_jax.terms.base import Batch, Term
from at_jax.terms.view import View

__all__ = [
    "FlipSymmetry",
    "GradientTransfer",
    "JacobianMatching",
    "MapGradientTransfer",
    "MinL2",
    "SobolevTraining",
]


@dataclasses.dataclass(frozen=True)
class _CrossEntropyGradient(Term, abstract=True):
    """Options of the terms on J, the input gradient of the cross-entropy."""

    squared: bool = option(
        False, "Half the squared l2 norm instead of half the norm; the weight must be chosen anew."
    )
    temperature: float = option(
        1.0,
        "Temperature T of the cross-entropy T * CE(z / T) that is differentiated; 1 in the paper.",
        TEMPERATURES,
    )

    def _gradient(self, view: View) -> jax.Array:
        """J of a network: (B, H, W, C)."""
        return view.gradient(view.tempered_cross_entropy(self.temperature))


@dataclasses.dataclass(frozen=True)
class GradientTransfer(_CrossEntropyGradient):
    """Gradient-based attention transfer: half the distance of the input gradients J of both networks.

    J of a teacher that has fitted its training images vanishes at temperature 1.
    See :func:`at_jax.gradients.gradient_transfer`.
    """

    name: ClassVar[str] = "gradient_at"
    title: ClassVar[str] = "gradient transfer"
    color: ClassVar[str] = "#CC79A7"
    color_with_kd: ClassVar[str] = "#7A3E8F"
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


def _squared_distance(g_s: jax.Array, g_t: jax.Array) -> jax.Array:
    """(B, N), (B, N) -> (B,)."""
    return jnp.sum(jnp.square(g_s - g_t), axis=-1)


@dataclasses.dataclass(frozen=True)
class JacobianMatching(Term):
    r"""Jacobian matching: :math:`\| g_s / |g_s| - g_t / |g_t| \|_2^2`.

    g_s and g_t are the gradients of one logit with respect to the images: the class of the teacher's
    largest logit. Where a gradient is zero, its normalized gradient is zero too, with zero derivative:
    the term is 1 if one of both is zero and 0 if both are.

    Srinivas & Fleuret 2018, arXiv:1803.00443.
    """

    name: ClassVar[str] = "jacobian"
    title: ClassVar[str] = "Jacobian matching"
    color: ClassVar[str] = "#8C564B"
    needs_equal_classes: ClassVar[bool] = True

    def values(self, batch: Batch, params: Any) -> jax.Array:
        """Compute the squared distance of the normalized gradients: (B,)."""
        top = jnp.argmax(batch.teacher.logits, axis=-1)  # (B,)

        def top_logit(logits: jax.Array) -> jax.Array:
            return jnp.take_along_axis(logits, top[:, None], axis=-1)[:, 0]

        g_s, g_t = (view.gradient(top_logit) for view in (batch.student, batch.teacher))
        return _squared_distance(maps.normalize(g_s), maps.normalize(g_t))


@dataclasses.dataclass(frozen=True)
class SobolevTraining(Term):
    r"""Sobolev training, with gradients with respect to the images.

    .. math:: \| \nabla_x \langle f_s, v \rangle - \nabla_x \langle f_t, v \rangle \|_2^2

    v is a random direction on the unit sphere over classes, the same for both networks. It is a function
    of (seed, step, position in the global batch).

    Czarnecki et al. 2017, arXiv:1706.04859.
    """

    name: ClassVar[str] = "sobolev"
    title: ClassVar[str] = "Sobolev training"
    color: ClassVar[str] = "#2F7F8F"
    needs_equal_classes: ClassVar[bool] = True

    def values(self, batch: Batch, params: Any) -> jax.Array:
        """Compute the squared distance of the projected gradients: (B,)."""
        if batch.keys is None:
            raise UserError(
                "sobolev draws random directions, got keys=None: pass keys= (B,) to the objective"
            )
        classes = batch.student.logits.shape[-1:]
        v = maps.normalize(
            jax.vmap(lambda key: jax.random.normal(key, classes))(batch.keys)
        )  # (B, K)

        def projection(logits: jax.Array) -> jax.Array:
            return jnp.sum(logits * v.astype(logits.dtype), axis=-1)

        g_s, g_t = (view.gradient(projection) for view in (batch.student, batch.teacher))
        rows = len(batch.images), -1
        return _squared_distance(g_s.reshape(rows), g_t.reshape(rows))


@dataclasses.dataclass(frozen=True)
class MapGradientTransfer(Term):
    r"""Matching of the gradients of attention maps at the teacher's most attended position.

    The gradients of the map F_sum^2 (not normalized) at one transfer point with respect to the images,
    at the position where the teacher's map is largest, are normalized and compared as in
    :class:`JacobianMatching`. Maps of different size are resized as in
    :func:`at_jax.losses.attention_transfer`. Student and teacher may have different classes.

    Srinivas & Fleuret 2018, arXiv:1803.00443, section 4.
    """

    name: ClassVar[str] = "map_gradient"
    title: ClassVar[str] = "map gradient transfer"
    color: ClassVar[str] = "#4D6B1F"
    compares_taps: ClassVar[str] = "activation"

    point: str = option("", "Transfer point of the student; empty: the last one.")

    def values(self, batch: Batch, params: Any) -> jax.Array:
        """Compute the squared distance of the normalized gradients: (B,)."""
        s, t = self._pair(batch.points)
        q_s, q_t = losses.attention_maps(batch.student.taps[s], batch.teacher.taps[t])
        position = jnp.argmax(q_t.reshape(len(q_t), -1), axis=-1)  # (B,)

        def at_position(name: str):
            def value(logits: jax.Array, taps: Any) -> jax.Array:
                q = maps.resize(maps.sum_map(taps[name]), q_s.shape[1:])
                return jnp.take_along_axis(q.reshape(len(q), -1), position[:, None], axis=-1)[:, 0]

            return value

        g_s = batch.student.gradient(at_position(s))
        g_t = batch.teacher.gradient(at_position(t))
        return _squared_distance(maps.normalize(g_s), maps.normalize(g_t))

    def _pair(self, points: tuple[tuple[str, str], ...]) -> tuple[str, str]:
        if not self.point:
            return points[-1]
        for pair in points:
            if pair[0] == self.point:
                return pair
        raise UserError(
            f"map_gradient.point must be a student point of transfer.points, got {self.point!r}: choose "
            f"among {listed(s for s, _ in points)}"
        )
