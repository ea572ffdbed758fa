"""Trainable 1x1 convolutions of full-activation transfer."""

from collections.abc import Mapping

import flax.linen as nn
import jax

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

    @nn.compact
    def __call__(self, taps: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Apply the convolutions: name -> (B, H, W, C_s) to name -> (B, H, W, C_t).

        >>> import jax, jax.numpy as jnp
        >>> adapter = Adapter(channels=(("group1", 32),))
        >>> taps = {"group1": jnp.ones((1, 4, 4, 16))}
        >>> variables = adapter.init(jax.random.key(0), taps)
        >>> adapter.apply(variables, taps)["group1"].shape
        (1, 4, 4, 32)
        """
        adapted = dict(taps)
        for point, width in self.channels:
            # A "/" in a name (a tap of a submodule) would nest the parameters.
            name = point.replace("/", "_")
            activation = at_least_float32(taps[point])
            convolution = layers.conv(width, 1, use_bias=True, dtype=activation.dtype, name=name)
            adapted[point] = convolution(activation)
        return adapted
