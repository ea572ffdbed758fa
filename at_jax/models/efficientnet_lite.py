"""EfficientNet-Lite0: EfficientNet (Tan & Le, arXiv:1905.11946) without squeeze-and-excitation, with ReLU6.

The network, its padding and its constants match TensorFlow's EfficientNet-Lite, from which the PyTorch
weights were converted.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax.intermediates import tap
from at_jax.models import layers

__all__ = ["STAGES", "EfficientNetLite", "MBConv"]

# Groups of blocks, by stage: (expansion, channels, blocks, stride of the first block, kernel).
STAGES = (
    ((1, 16, 1, 1, 3),),
    ((6, 24, 2, 2, 3),),
    ((6, 40, 2, 2, 5),),
    ((6, 80, 3, 2, 3), (6, 112, 3, 1, 5)),
    ((6, 192, 4, 2, 5), (6, 320, 1, 1, 3)),
)
_STEM, _HEAD = 32, 1280  # channels
_NORM = {"momentum": 0.99, "epsilon": 1e-3}


class MBConv(nn.Module):
    """Expand (1x1), filter (depthwise), project (1x1): (B, H, W, C) -> (B, H/stride, W/stride, F).

    Expansion 1 has no first convolution. The projection has no activation. The input is added if the
    shapes agree.
    """

    features: int
    expansion: int
    stride: int = 1
    kernel: int = 3
    dtype: Any = jnp.float32
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply the block."""
        norm = {"train": train, "dtype": self.dtype, "axis_name": self.bn_axis_name, **_NORM}
        hidden = x.shape[-1] * self.expansion
        y = x
        if self.expansion > 1:
            y = nn.relu6(layers.conv_bn(y, hidden, 1, ("expand", "bn0"), norm, same=True))
        # TensorFlow's fan-out: one channel of a depthwise convolution feeds one channel.
        fan = {"init_scale": 2.0 * hidden}
        depthwise = {"stride": self.stride, "groups": hidden, "same": True, **fan}
        y = layers.conv_bn(y, hidden, self.kernel, ("depthwise", "bn1"), norm, **depthwise)
        y = layers.conv_bn(nn.relu6(y), self.features, 1, ("project", "bn2"), norm, same=True)
        return x + y if x.shape == y.shape else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0.

    Taps ``stage1`` to ``stage5`` at the end of the blocks of each resolution, at 1/2, 1/4, 1/8, 1/16 and
    1/32 of the image size: 16, 24, 40, 112 and 320 channels. 4,652,008 parameters with 1,000 classes.
    :func:`at_jax.models.imagenet.efficientnet_lite0` has its ImageNet weights.

    The original training also dropped blocks and features at random. This module does not.

    Attributes:
      num_classes: K.
      dtype: of the computation; parameters and statistics are float32.
      bn_axis_name: the pmapped axis over which batch statistics are averaged; None on one device.
      remat: store only the activations between blocks and recompute those inside in each backward pass
        (``jax.checkpoint``): less memory on GPU and TPU, more time.
    """

    num_classes: int = 1000
    dtype: Any = jnp.float32
    bn_axis_name: str | None = None
    remat: bool = False

    def __post_init__(self) -> None:
        layers.check_fields(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Classify images.

        Args:
          images: normalized, floating point, ``(B, H, W, C)``, at least 32x32 pixels.
          train: normalize by the statistics of the batch and update the running statistics.

        Returns:
          Logits, ``(B, K)``.

        Raises:
          UserError: if the images have a wrong rank, dtype or size.
        """
        layers.check_images(images, 32, "EfficientNet-Lite0")
        make_block = layers.rematerialized(MBConv) if self.remat else MBConv
        norm = {"train": train, "dtype": self.dtype, "axis_name": self.bn_axis_name, **_NORM}
        x = images.astype(self.dtype)
        x = nn.relu6(layers.conv_bn(x, _STEM, 3, ("conv0", "bn0"), norm, stride=2, same=True))
        for stage, groups in enumerate(STAGES, start=1):
            plan = [
                (expansion, channels, stride if block == 0 else 1, kernel)
                for expansion, channels, blocks, stride, kernel in groups
                for block in range(blocks)
            ]
            for block, (expansion, channels, stride, kernel) in enumerate(plan):
                x = make_block(
                    channels,
                    expansion,
                    stride,
                    kernel,
                    dtype=self.dtype,
                    bn_axis_name=self.bn_axis_name,
                    name=f"stage{stage}_block{block}",
                )(x, train)
            tap(self, f"stage{stage}", x)
        x = nn.relu6(layers.conv_bn(x, _HEAD, 1, ("conv1", "bn1"), norm, same=True))
        return layers.classifier(jnp.mean(x, axis=(1, 2)), self.num_classes, self.dtype)
