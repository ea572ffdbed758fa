"""Wide residual networks for small images (Zagoruyko & Komodakis, arXiv:1605.07146)."""

import math
import numbers
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax.errors import UserError
from at_jax.intermediates import tap
from at_jax.models import layers

__all__ = ["WideResNet", "WideResNetBlock"]


class WideResNetBlock(nn.Module):
    """A pre-activation block of two 3x3 convolutions: (B, H, W, C) -> (B, H/stride, W/stride, F)."""

    features: int
    stride: int = 1
    dtype: Any = jnp.float32
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply the block."""
        norm = {"train": train, "dtype": self.dtype, "axis_name": self.bn_axis_name}
        activated = nn.relu(layers.batch_norm(x, **norm, name="bn0"))
        conv0 = layers.conv(self.features, 3, stride=self.stride, dtype=self.dtype, name="conv0")
        y = nn.relu(layers.batch_norm(conv0(activated), **norm, name="bn1"))
        y = layers.conv(self.features, 3, dtype=self.dtype, name="conv1")(y)
        if x.shape[-1] == self.features and self.stride == 1:
            return y + x
        # As in the authors' code, the shortcut starts at the activated input where the width changes.
        shortcut = layers.conv(
            self.features, 1, stride=self.stride, dtype=self.dtype, name="shortcut"
        )
        return y + shortcut(activated)


class WideResNet(nn.Module):
    """WRN-depth-width: three groups of ``(depth - 4) / 6`` blocks with 16, 32, 64 times ``width`` channels.

    Taps ``group1``, ``group2``, ``group3``: the sums at the end of each group, before the next batch
    normalization, at 1, 1/2 and 1/4 of the image size. WRN-16-1 has 175,066 parameters with 10 classes.

    Attributes:
      depth: 6n + 4.
      width: the factor k; may be fractional.
      num_classes: K.
      dtype: of the computation; parameters and statistics are float32.
      bn_axis_name: the pmapped axis over which batch statistics are averaged; None on one device.
      remat: store only the activations between blocks and recompute those inside in each backward pass
        (``jax.checkpoint``): less memory on GPU and TPU, more time.
    """

    depth: int
    width: float
    num_classes: int = 10
    dtype: Any = jnp.float32
    bn_axis_name: str | None = None
    remat: bool = False

    def __post_init__(self) -> None:
        layers.check_fields(self)
        if self.depth < 10 or (self.depth - 4) % 6:
            raise UserError(
                f"the depth of a wide ResNet must be 6n+4 (10, 16, 22, 28, 40, ...), got {self.depth}: "
                "for example wrn_16_1"
            )
        if not isinstance(self.width, numbers.Real) or not 1 <= 16 * self.width < math.inf:
            raise UserError(
                f"the width of a wide ResNet must leave at least one channel of 16, got {self.width}: "
                "use 1/16 or more, for example wrn_16_1"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Classify images.

        Args:
          images: normalized, floating point, ``(B, H, W, C)``, at least 4x4 pixels.
          train: normalize by the statistics of the batch and update the running statistics.

        Returns:
          Logits, ``(B, K)``.

        Raises:
          UserError: if the images have a wrong rank, dtype or size.
        """
        layers.check_images(images, 4, f"WideResNet-{self.depth}-{self.width:g}")
        make_block = layers.rematerialized(WideResNetBlock) if self.remat else WideResNetBlock
        x = layers.conv(16, 3, dtype=self.dtype, name="conv0")(images.astype(self.dtype))
        for group, (base, stride) in enumerate(((16, 1), (32, 2), (64, 2)), start=1):
            for block in range((self.depth - 4) // 6):
                x = make_block(
                    int(base * self.width),
                    stride if block == 0 else 1,
                    dtype=self.dtype,
                    bn_axis_name=self.bn_axis_name,
                    name=f"group{group}_block{block}",
                )(x, train)
            tap(self, f"group{group}", x)
        norm = {"train": train, "dtype": self.dtype, "axis_name": self.bn_axis_name}
        x = nn.relu(layers.batch_norm(x, **norm, name="bn"))
        return layers.classifier(jnp.mean(x, axis=(1, 2)), self.num_classes, self.dtype)
