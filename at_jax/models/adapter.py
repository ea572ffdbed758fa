"""Trainable 1x1 convolutions of full-activation transfer."""

import operator
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from at_jax import intermediates
from at_jax.checks import check_rank
from at_jax.errors import UserError
from at_jax.models import layers
from at_jax.precision import at_least_float32

__all__ = ["Adapter"]


class Adapter(nn.Module):
    """Adapts student activations to the teacher's number of channels.

    One 1x1 convolution with bias for each transfer point in ``channels``; other points are returned
    unchanged. It computes in the dtype of its input, or in float32 for half precision, like F-ActT.

    Attributes:
      channels: pairs (transfer point of the student, channels of the teacher at its point).
    """

    channels: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        pairs = self.channels.items() if isinstance(self.channels, Mapping) else self.channels
        try:
            # Tuples: static arguments of jax.jit must be hashable.
            self.channels = tuple((str(point), operator.index(width)) for point, width in pairs)
        except (TypeError, ValueError):
            wrong = True
        else:
            wrong = any(width < 1 for _, width in self.channels)
        if wrong:
            raise UserError(
                "Adapter: channels must be pairs of a transfer point and a number of channels, got "
                f"{self.channels!r}: for example (('group3', 128),)"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, taps: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Apply the convolutions: name -> (B, H, W, C_s) to name -> (B, H, W, C_t).

        Raises:
          UserError: for a missing point, two points of one name, or a rank other than 4.

        >>> import jax, jax.numpy as jnp
        >>> adapter = Adapter(channels=(("group1", 32),))
        >>> taps = {"group1": jnp.ones((1, 4, 4, 16))}
        >>> variables = adapter.init(jax.random.key(0), taps)
        >>> adapter.apply(variables, taps)["group1"].shape
        (1, 4, 4, 32)
        """
        intermediates.check_points([point for point, _ in self.channels], taps, "student")
        adapted, used = dict(taps), dict[str, str]()
        for point, width in self.channels:
            tapped: dict[str, Any] = {point: taps[point]}
            check_rank("Adapter", 4, **tapped)
            # A "/" in a name (a tap of a submodule) would nest the parameters.
            name = point.replace("/", "_")
            if name in used:
                raise UserError(
                    f"Adapter: transfer points must be different, also with '_' for '/', got "
                    f"{used[name]!r} and {point!r}: leave one out, or rename the tap"
                )
            used[name] = point
            activation = at_least_float32(taps[point])
            convolution = layers.conv(width, 1, use_bias=True, dtype=activation.dtype, name=name)
            adapted[point] = convolution(activation)
        return adapted
