"""Terms on input gradients of logits and of attention maps. Training on them differentiates twice."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from at_jax import losses, maps
from at_jax.errors import UserError, listed
from at_jax.norms import flattened
from at_jax.options import option
from at_jax.precision import at_least_float32, power_of_two
from at_jax.terms.base import Batch, Term
from at_jax.terms.input_gradients import norms
from at_jax.terms.view import View

__all__ = ["JacobianMatching", "MapGradientTransfer", "SobolevTraining"]

# Input gradients of student and teacher, each (B, H, W, C).
Pair = tuple[jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class _PairOfGradients(Term, abstract=True):
    """Comparison of one input gradient of the student with one of the teacher."""

    def _differentiate(self, batch: Batch) -> Pair:
        raise NotImplementedError

    def _gradients(self, batch: Batch) -> Pair:
        # Kept: values() and measures() would differentiate two functions, which the views cannot know to be
        # the same. The result holds the batch, so that no other one can have its id.
        _, pair = batch.student.kept((self, id(batch)), lambda: (batch, self._differentiate(batch)))
        return pair

    def measures(self, batch: Batch, params: Any) -> dict[str, jax.Array]:
        """Norms of the two gradients, before any normalization."""
        return norms(*self._gradients(batch))


def _squared_distance(g_s: jax.Array, g_t: jax.Array) -> jax.Array:
    """(B, N), (B, N) -> (B,)."""
    return jnp.sum(jnp.square(g_s - g_t), axis=-1)


@dataclasses.dataclass(frozen=True)
class _NormalizedGradients(_PairOfGradients, abstract=True):
    def values(self, batch: Batch, params: Any) -> jax.Array:
        """Compute the squared distance of the normalized gradients: (B,)."""
        g_s, g_t = self._gradients(batch)
        return _squared_distance(maps.normalize(g_s), maps.normalize(g_t))


@dataclasses.dataclass(frozen=True)
class JacobianMatching(_NormalizedGradients):
    r"""Jacobian matching: :math:`\| g_s / |g_s| - g_t / |g_t| \|_2^2`.

    g_s and g_t are the gradients of one logit with respect to the images: the class of the teacher's
    largest logit. If a gradient is zero, its normalized gradient is zero too, with zero derivative: the
    term is 1 if one of the two is zero and 0 if both are.

    Srinivas & Fleuret 2018, arXiv:1803.00443.
    """

    name: ClassVar[str] = "jacobian"
    title: ClassVar[str] = "Jacobian matching"
    color: ClassVar[str] = "#8C564B"
    needs_equal_classes: ClassVar[bool] = True

    def _differentiate(self, batch: Batch) -> Pair:
        top = jnp.argmax(batch.teacher.logits, axis=-1)  # (B,)

        def top_logit(logits: jax.Array) -> jax.Array:
            return jnp.take_along_axis(logits, top[:, None], axis=-1)[:, 0]

        return batch.student.gradient(top_logit), batch.teacher.gradient(top_logit)


@dataclasses.dataclass(frozen=True)
class SobolevTraining(_PairOfGradients):
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
        g_s, g_t = self._gradients(batch)
        return _squared_distance(flattened(g_s), flattened(g_t))

    def _differentiate(self, batch: Batch) -> Pair:
        if batch.keys is None:
            raise UserError(
                "sobolev draws random directions, got keys=None: pass keys= (B,) to the objective"
            )
        classes = batch.student.logits.shape[-1:]
        drawn = jax.vmap(lambda key: jax.random.normal(key, classes))(batch.keys)
        v = maps.normalize(drawn)  # (B, K)

        def projection(logits: jax.Array) -> jax.Array:
            return jnp.sum(logits * v.astype(logits.dtype), axis=-1)

        return batch.student.gradient(projection), batch.teacher.gradient(projection)


def _scaled(tap: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tap times a power of two, (B, H, W, C), and the inverse of the power, (B,).

    Squares of the scaled tap are in the range of its type. The power is not differentiated.
    """
    a = at_least_float32(tap)
    scale, inverse = power_of_two(a, (1, 2, 3))
    return a * scale, inverse[:, 0, 0, 0]


@dataclasses.dataclass(frozen=True)
class MapGradientTransfer(_NormalizedGradients):
    r"""Matching of the gradients of attention maps at the teacher's most attended position.

    The gradients of the map F_sum^2 (not normalized) at one transfer point with respect to the images,
    at the position where the teacher's map is largest, are normalized and compared as in
    :class:`JacobianMatching`. Maps of different size are resized as in
    :func:`at_jax.losses.attention_transfer`. Student and teacher may have different classes. The term does
    not depend on the scale of the taps, whose squares may be outside of the range of float32.

    Srinivas & Fleuret 2018, arXiv:1803.00443, section 4.
    """

    name: ClassVar[str] = "map_gradient"
    title: ClassVar[str] = "map gradient transfer"
    color: ClassVar[str] = "#4D6B1F"
    compares_taps: ClassVar[str] = "activation"

    point: str = option("", "Transfer point of the student; empty: the last one.")

    def _differentiate(self, batch: Batch) -> Pair:
        s, t = self._pair(batch.points)
        a_s, a_t = (_scaled(view.taps[name])[0] for view, name in self._tapped(batch))
        q_s, q_t = losses.attention_maps(a_s, a_t)
        position = jnp.argmax(flattened(q_t), axis=-1)  # (B,)

        def at_position(name: str):
            def value(logits: jax.Array, taps: Any) -> jax.Array:
                a, inverse = _scaled(taps[name])
                q = maps.resize(maps.sum_map(a), q_s.shape[1:])
                chosen = jnp.take_along_axis(flattened(q), position[:, None], axis=-1)[:, 0]
                # Its gradient with respect to the tap is near 1, in the range of half precision too.
                return chosen * inverse

            return value

        return batch.student.gradient(at_position(s)), batch.teacher.gradient(at_position(t))

    def measures(self, batch: Batch, params: Any) -> dict[str, jax.Array]:
        """Norms of the two gradients of the unscaled maps, before any normalization."""
        inverses = [_scaled(view.taps[name])[1] for view, name in self._tapped(batch)]
        measured = super().measures(batch, params)
        return {
            name: norm * inverse
            for (name, norm), inverse in zip(measured.items(), inverses, strict=True)
        }

    def _tapped(self, batch: Batch) -> list[tuple[View, str]]:
        """Student and teacher, each with the name of its tap."""
        s, t = self._pair(batch.points)
        return [(batch.student, s), (batch.teacher, t)]

    def _pair(self, points: tuple[tuple[str, str], ...]) -> tuple[str, str]:
        if not self.point:
            return points[-1]
        for pair in points:
            if pair[0] == self.point:
                return pair
        raise UserError(
            f"map_gradient.point must be a student point of transfer.points, got {self.point!r}: "
            f"choose from {listed(s for s, _ in points)}"
        )
