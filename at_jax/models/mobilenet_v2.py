"""MobileNetV2 for small images (Sandler et al., arXiv:1801.04381), as in RepDistiller on CIFAR."""

import math
import numbers
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax.errors import UserError
from at_jax.intermediates import tap
from at_jax.models import layers

__all__ = ["STAGES", "InvertedResidual", "MobileNetV2"]

# Groups of blocks, by stage: (expansion, channels at width 1, blocks, stride of the first block).
STAGES = (
    ((1, 16, 1, 1), (6, 24, 2, 1)),
    ((6, 32, 3, 2),),
    ((6, 64, 4, 2), (6, 96, 3, 1)),
    ((6, 160, 3, 2), (6, 320, 1, 1)),
)


class InvertedResidual(nn.Module):
    """Expand (1x1), filter (3x3 depthwise), project (1x1): (B, H, W, C) -> (B, H/stride, W/stride, F).

    The projection has no activation. The input is added if the shapes agree.
    """

    features: int
    expansion: int
    stride: int = 1
    dtype: Any = jnp.float32
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply the block."""
        norm = {"train": train, "dtype": self.dtype, "axis_name": self.bn_axis_name}
        hidden = x.shape[-1] * self.expansion
        y = nn.relu(layers.conv_bn(x, hidden, 1, ("expand", "bn0"), norm))
        depthwise = {"stride": self.stride, "groups": hidden}
        y = nn.relu(layers.conv_bn(y, hidden, 3, ("depthwise", "bn1"), norm, **depthwise))
        y = layers.conv_bn(y, self.features, 1, ("project", "bn2"), norm)
        return x + y if x.shape == y.shape else y


class MobileNetV2(nn.Module):
    """MobileNetV2 with strides for 32-pixel images.

    Taps ``stage1`` to ``stage4`` at the end of each group of blocks of one resolution, at 1/2, 1/4, 1/8 and
    1/16 of the image size, before the next expansion. The activations are ReLU, as in RepDistiller; the
    paper has ReLU6. Width 0.5 has 697,546 parameters with 10 classes and 812,836 with 100.

    Attributes:
      width: factor of the number of channels.
      num_classes: K.
      dtype: of the computation; parameters and statistics are float32.
      bn_axis_name: the pmapped axis over which batch statistics are averaged; None on one device.
      remat: store only the activations between blocks and recompute those inside in each backward pass
        (``jax.checkpoint``): less memory on GPU and TPU, more time.
    """

    width: float = 0.5
    num_classes: int = 10
    dtype: Any = jnp.float32
    bn_axis_name: str | None = None
    remat: bool = False

    def __post_init__(self) -> None:
        layers.check_fields(self)
        if not isinstance(self.width, numbers.Real) or not 1 <= 16 * self.width < math.inf:
            raise UserError(
                "the width of a MobileNetV2 must leave at least one channel of 16, got "
                f"{self.width}: use 1/16 or more, for example mobilenet_v2_0.5"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Classify images.

        Args:
          images: normalized, floating point, ``(B, H, W, C)``, at least 16x16 pixels.
          train: normalize by the statistics of the batch and update the running statistics.

        Returns:
          Logits, ``(B, K)``.

        Raises:
          UserError: if the images have a wrong rank, dtype or size.
        """
        layers.check_images(images, 16, f"MobileNetV2-{self.width:g}")
        make_block = layers.rematerialized(InvertedResidual) if self.remat else InvertedResidual
        norm = {"train": train, "dtype": self.dtype, "axis_name": self.bn_axis_name}
        x, first = images.astype(self.dtype), int(32 * self.width)
        x = nn.relu(layers.conv_bn(x, first, 3, ("conv0", "bn0"), norm, stride=2))
        for stage, groups in enumerate(STAGES, start=1):
            plan = [
                (expansion, channels, stride if block == 0 else 1)
                for expansion, channels, blocks, stride in groups
                for block in range(blocks)
            ]
            for block, (expansion, channels, stride) in enumerate(plan):
                x = make_block(
                    int(channels * self.width),
                    expansion,
                    stride,
                    dtype=self.dtype,
                    bn_axis_name=self.bn_axis_name,
                    name=f"stage{stage}_block{block}",
                )(x, train)
            tap(self, f"stage{stage}", x)
        # As in the paper, the last convolution grows with the width but does not shrink.
        last = int(1280 * max(self.width, 1))
        x = nn.relu(layers.conv_bn(x, last, 1, ("conv1", "bn1"), norm))
        return layers.classifier(jnp.mean(x, axis=(1, 2)), self.num_classes, self.dtype)
