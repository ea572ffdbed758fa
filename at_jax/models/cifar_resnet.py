"""Residual networks for small images (He et al., arXiv:1512.03385, section 4.2), as in RepDistiller."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax.errors import UserError
from at_jax.intermediates import tap
from at_jax.models import layers
from at_jax.models.resnet import ResNetBlock

__all__ = ["WIDTHS", "CifarResNet"]

# Channels of the first convolution and of the three stages, by width. Four times as wide, the first
# convolution has twice the channels.
WIDTHS = {1: (16, 16, 32, 64), 4: (32, 64, 128, 256)}


class CifarResNet(nn.Module):
    """ResNet with three stages of ``(depth - 2) / 6`` basic blocks, without initial pooling.

    Taps ``stage1``, ``stage2``, ``stage3`` after the last ReLU of each stage, at 1, 1/2 and 1/4 of the
    image size. If the shape changes, the shortcut is a 1x1 convolution with batch normalization. With 100
    classes, depth 20 has 278,324 parameters, and depth 8 of width 4 (``cifar_resnet_8x4``) 1,233,540.

    Attributes:
      depth: 6n + 2.
      width: 1 for 16, 32 and 64 channels; 4 for 64, 128 and 256.
      num_classes: K.
      dtype: of the computation; parameters and statistics are float32.
      bn_axis_name: the pmapped axis over which batch statistics are averaged; None on one device.
      remat: store only the activations between blocks and recompute those inside in each backward pass
        (``jax.checkpoint``): less memory on GPU and TPU, more time.
    """

    depth: int
    width: int = 1
    num_classes: int = 100
    dtype: Any = jnp.float32
    bn_axis_name: str | None = None
    remat: bool = False

    def __post_init__(self) -> None:
        layers.check_fields(self)
        if self.depth < 8 or (self.depth - 2) % 6:
            raise UserError(
                "the depth of a ResNet for small images must be 6n+2 (8, 14, 20, 32, 56, 110, ...), got "
                f"{self.depth}: for example cifar_resnet_20"
            )
        if self.width not in WIDTHS:
            raise UserError(
                f"the width of a ResNet for small images must be {' or '.join(map(str, WIDTHS))}, got "
                f"{self.width}: for example cifar_resnet_8x4"
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
        name = f"CifarResNet-{self.depth}" + (f"x{self.width}" if self.width > 1 else "")
        layers.check_images(images, 4, name)
        make_block = layers.rematerialized(ResNetBlock) if self.remat else ResNetBlock
        first, *widths = WIDTHS[self.width]
        norm = {"train": train, "dtype": self.dtype, "axis_name": self.bn_axis_name}
        x = layers.conv_bn(images.astype(self.dtype), first, 3, ("conv1", "bn1"), norm)
        x = nn.relu(x)
        for stage, features in enumerate(widths, start=1):
            for block in range((self.depth - 2) // 6):
                x = make_block(
                    features,
                    2 if stage > 1 and block == 0 else 1,
                    bottleneck=False,
                    dtype=self.dtype,
                    bn_axis_name=self.bn_axis_name,
                    name=f"stage{stage}_block{block}",
                )(x, train)
            tap(self, f"stage{stage}", x)
        return layers.classifier(jnp.mean(x, axis=(1, 2)), self.num_classes, self.dtype)
