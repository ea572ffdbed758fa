"""VGG for small images (Simonyan & Zisserman, arXiv:1409.1556), as in RepDistiller."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax.errors import UserError
from at_jax.intermediates import tap
from at_jax.models import layers

__all__ = ["STAGES", "VGG", "WIDTHS"]

# Convolutions of the five stages, by depth.
STAGES = {8: (1, 1, 1, 1, 1), 13: (2, 2, 2, 2, 2)}
WIDTHS = (64, 128, 256, 512, 512)
# Stages that end in 2x2 max pooling: the last two have the same size, as at 32 pixels in RepDistiller.
_POOLED = 3


class VGG(nn.Module):
    """VGG-8 or VGG-13 with batch normalization and one linear layer after the global average.

    Each stage has one or two 3x3 convolutions, with a bias although a normalization follows. Taps
    ``stage1`` to ``stage5`` after the last ReLU of each stage, before its pooling, at 1, 1/2, 1/4, 1/8 and
    1/8 of the image size. RepDistiller transfers at ``stage2`` to ``stage5``, and pools images of 64 pixels
    a fourth time. With 100 classes VGG-8 has 3,965,028 parameters and VGG-13 has 9,462,180.

    Attributes:
      depth: 8 or 13.
      num_classes: K.
      dtype: of the computation; parameters and statistics are float32.
      bn_axis_name: the pmapped axis over which batch statistics are averaged; None on one device.
    """

    depth: int
    num_classes: int = 100
    dtype: Any = jnp.float32
    bn_axis_name: str | None = None

    def __post_init__(self) -> None:
        layers.check_fields(self)
        if self.depth not in STAGES:
            raise UserError(
                f"the depth of a VGG must be one of {', '.join(map(str, STAGES))}, got {self.depth}: "
                "for example vgg_8"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Classify images.

        Args:
          images: normalized, floating point, ``(B, H, W, C)``, at least 8x8 pixels.
          train: normalize by the statistics of the batch and update the running statistics.

        Returns:
          Logits, ``(B, K)``.

        Raises:
          UserError: if the images have a wrong rank, dtype or size.
        """
        layers.check_images(images, 2**_POOLED, f"VGG-{self.depth}")
        norm = {"train": train, "dtype": self.dtype, "axis_name": self.bn_axis_name}
        x = images.astype(self.dtype)
        plan = zip(WIDTHS, STAGES[self.depth], strict=True)
        for stage, (features, convolutions) in enumerate(plan, start=1):
            for layer in range(convolutions):
                names = f"conv{stage}_{layer}", f"bn{stage}_{layer}"
                x = nn.relu(layers.conv_bn(x, features, 3, names, norm, use_bias=True))
            tap(self, f"stage{stage}", x)
            if stage <= _POOLED:
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
        return layers.classifier(jnp.mean(x, axis=(1, 2)), self.num_classes, self.dtype)
