"""Terms that compare activations at the transfer points."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax

from at_jax import losses, models
from at_jax.errors import UserError
from at_jax.options import between, one_of, option
from at_jax.terms.base import Batch, Term

__all__ = ["ActivationTransfer", "AttentionTransfer"]


@dataclasses.dataclass(frozen=True)
class AttentionTransfer(Term):
    """Activation-based attention transfer, summed over the transfer points.

    See :func:`at_jax.losses.attention_transfer`.
    """

    name: ClassVar[str] = "at"
    title: ClassVar[str] = "attention transfer"
    color: ClassVar[str] = "#D55E00"
    color_combined: ClassVar[str] = "#009E73"
    metric: ClassVar[str] = "attention"
    beta: ClassVar[float] = 1000.0
    compares_taps: ClassVar[str] = "activation"

    kind: losses.Kind = option(
        "sum",
        "Attention map: sum or max over channels, or channel (sum over positions).",
        one_of(*losses.KINDS),
    )
    p: float = option(2.0, "Exponent of the map.", between(1, losses.MAX_EXPONENT))
    convention: losses.Convention = option(
        "code",
        "code: mean square as in the authors' code, for beta 1000; paper: equation 2 of the paper.",
        one_of(*losses.CONVENTIONS),
    )
    align: losses.Alignment = option(
        "resize",
        "For different sizes: resize the maps, or average-pool the larger activations before squaring "
        "(pool), as in RepDistiller and mdistiller.",
        one_of(*losses.ALIGNMENTS),
    )

    def values(self, batch: Batch, params: Any) -> jax.Array:
        """Sum attention transfer over the points: (B,)."""
        total: Any = sum(
            losses.attention_transfer(
                batch.student.taps[s],
                batch.teacher.taps[t],
                kind=self.kind,
                p=self.p,
                convention=self.convention,
                align=self.align,
            )
            for s, t in batch.points
        )
        return total


@dataclasses.dataclass(frozen=True)
class ActivationTransfer(Term):
    """Full-activation transfer (F-ActT), summed over the transfer points.

    If the widths differ, a trainable 1x1 convolution adapts the student's activations. See
    :func:`at_jax.losses.activation_transfer`.
    """

    name: ClassVar[str] = "f_actt"
    title: ClassVar[str] = "activation transfer"
    color: ClassVar[str] = "#E69F00"
    metric: ClassVar[str] = "activation"
    beta: ClassVar[float] = 0.1
    compares_taps: ClassVar[str] = "activation"

    def values(self, batch: Batch, params: Any) -> jax.Array:
        """Sum full-activation transfer over the points: (B,)."""
        taps_s, taps_t = batch.student.taps, batch.teacher.taps
        adapter = self.module(batch.points, taps_s, taps_t)
        adapted: Any = adapter.apply({"params": params}, taps_s) if adapter is not None else taps_s
        total: Any = sum(losses.activation_transfer(adapted[s], taps_t[t]) for s, t in batch.points)
        return total

    def module(
        self,
        points: tuple[tuple[str, str], ...],
        taps_s: Mapping[str, Any],
        taps_t: Mapping[str, Any],
    ) -> nn.Module | None:
        """A 1x1 convolution for each point whose widths differ; None if all are equal.

        Raises:
          UserError: if a student point is named twice.
        """
        if len({s for s, _ in points}) < len(points):
            raise UserError(
                f"f_actt adapts each student point to one teacher point, got {points}: name each student "
                "point once"
            )
        channels = tuple(
            (s, taps_t[t].shape[-1])
            for s, t in points
            if taps_s[s].shape[-1] != taps_t[t].shape[-1]
        )
        return models.Adapter(channels) if channels else None
