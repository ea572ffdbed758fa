"""Residual networks for 224-pixel images (He et al., arXiv:1512.03385), as in torchvision."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax.errors import UserError
from at_jax.intermediates import tap
from at_jax.models import layers

__all__ = ["STAGES", "ResNet", "ResNetBlock"]

# Blocks per stage; True for bottleneck blocks (1x1, 3x3, 1x1).
STAGES = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
}


class ResNetBlock(nn.Module):
    """A basic or bottleneck block: (B, H, W, C) -> (B, H/stride, W/stride, F or 4 F), after ReLU."""

    features: int
    stride: int
    bottleneck: bool
    dtype: Any = jnp.float32
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply the block."""
        norm = {"train": train, "dtype": self.dtype, "axis_name": self.bn_axis_name}
        width = self.features * (4 if self.bottleneck else 1)
        # As in torchvision, the stride of a bottleneck is in its 3x3 convolution, not in its first 1x1.
        plan = (
            ((self.features, 1, 1), (self.features, 3, self.stride), (width, 1, 1))
            if self.bottleneck
            else ((self.features, 3, self.stride), (width, 3, 1))
        )
        y = x
        for i, (features, size, stride) in enumerate(plan, start=1):
            y = layers.conv_bn(y, features, size, (f"conv{i}", f"bn{i}"), norm, stride=stride)
            if i < len(plan):
                y = nn.relu(y)
        if x.shape[-1] != width or self.stride != 1:
            names = "shortcut_conv", "shortcut_bn"
            x = layers.conv_bn(x, width, 1, names, norm, stride=self.stride)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet-18, 34, 50 or 101.

    Taps ``stage1`` to ``stage4`` after the last ReLU of each stage, at 1/4, 1/8, 1/16 and 1/32 of the
    image size. ResNet-18 has 11,689,512 parameters with 1,000 classes.

    Attributes:
      depth: 18, 34, 50 or 101.
      num_classes: K.
      dtype: of the computation; parameters and statistics are float32.
      bn_axis_name: the pmapped axis over which batch statistics are averaged; None on one device.
      remat: store only the activations between blocks and recompute those inside in each backward pass
        (``jax.checkpoint``): less memory on GPU and TPU, more time.
    """

    depth: int = 18
    num_classes: int = 1000
    dtype: Any = jnp.float32
    bn_axis_name: str | None = None
    remat: bool = False

    def __post_init__(self) -> None:
        layers.check_fields(self)
        if self.depth not in STAGES:
            raise UserError(
                f"the depth of a ResNet must be one of {', '.join(map(str, STAGES))}, got {self.depth}: "
                "for example resnet_18; cifar_resnet_20 is for small images"
            )
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
        layers.check_images(images, 32, f"ResNet-{self.depth}")
        norm = {"train": train, "dtype": self.dtype, "axis_name": self.bn_axis_name}
        x = layers.conv_bn(images.astype(self.dtype), 64, 7, ("conv1", "bn1"), norm, stride=2)
        x = nn.max_pool(nn.relu(x), (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        make_block = layers.rematerialized(ResNetBlock) if self.remat else ResNetBlock
        counts, bottleneck = STAGES[self.depth]
        for stage, blocks in enumerate(counts, start=1):
            for block in range(blocks):
                x = make_block(
                    32 * 2**stage,
                    2 if stage > 1 and block == 0 else 1,
                    bottleneck,
                    dtype=self.dtype,
                    bn_axis_name=self.bn_axis_name,
                    name=f"stage{stage}_block{block}",
                )(x, train)
            tap(self, f"stage{stage}", x)
        return layers.classifier(jnp.mean(x, axis=(1, 2)), self.num_classes, self.dtype)
