"""Network in network (Lin, Chen & Yan, arXiv:1312.4400), as student (thin) and teacher (wide)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from at_jax.errors import UserError
from at_jax.intermediates import tap
from at_jax.models import layers
from at_jax.precision import at_least_float32

__all__ = ["NIN", "WIDTHS"]

# Hidden widths of the three stages; the last stage ends in the K classes. Thin is half of wide.
WIDTHS = {
    "wide": ((192, 160, 96), (192, 192, 192), (192, 192)),
    "thin": ((96, 80, 48), (96, 96, 96), (96, 96)),
}


def _average_pool(x: jax.Array) -> jax.Array:
    """3x3, stride 2, padded by 1: (B, H, W, C) -> (B, ceil(H/2), ceil(W/2), C).

    ``nn.avg_pool`` is not used: it divides by an integer, which strict dtype promotion forbids.
    """
    # A NumPy zero: jnp.zeros is traced under jit, and lax recognizes a differentiable sum only by a
    # constant zero.
    zero = np.zeros((), x.dtype)
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, zero, lax.add, (1, 3, 3, 1), (1, 2, 2, 1), padding) / 9


class NIN(nn.Module):
    """Network in network: three stages of a spatial convolution and two 1x1 convolutions, no dropout.

    Stage 1 is followed by max pooling, stage 2 by average pooling, stage 3 by global average pooling. Taps
    ``stage1`` and ``stage2`` after the last ReLU of the stage, ``stage3`` after its last hidden layer, at
    1, 1/2 and 1/4 of the image size. With 10 classes, RGB images and no batch normalization, wide has
    966,986 parameters and thin 246,186.

    Attributes:
      width: ``"thin"`` or ``"wide"``.
      num_classes: K.
      batch_norm: normalize after each hidden convolution, which then has no bias. False in the paper's
        gradient experiments.
      dtype: of the computation; parameters and statistics are float32.
      bn_axis_name: the pmapped axis over which batch statistics are averaged; None on one device.
    """

    width: str = "thin"
    num_classes: int = 10
    batch_norm: bool = False
    dtype: Any = jnp.float32
    bn_axis_name: str | None = None

    def __post_init__(self) -> None:
        layers.check_fields(self)
        if self.width not in list(WIDTHS):
            raise UserError(
                f"the width of a NIN must be one of {', '.join(WIDTHS)}, got {self.width!r}"
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
        layers.check_images(images, 4, f"NIN-{self.width}")
        x = images.astype(self.dtype)
        plan = zip(WIDTHS[self.width], (5, 5, 3), strict=True)
        for stage, (widths, size) in enumerate(plan, start=1):
            for layer, width in enumerate(widths):
                x = self._hidden(x, width, size if layer == 0 else 1, f"{stage}_{layer}", train)
            tap(self, f"stage{stage}", x)
            if stage == 1:
                x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
            elif stage == 2:
                x = _average_pool(x)
        x = layers.conv(self.num_classes, 1, use_bias=True, dtype=self.dtype, name="classifier")(x)
        return at_least_float32(jnp.mean(x, axis=(1, 2)))  # (B, K)

    def _hidden(self, x: jax.Array, width: int, size: int, name: str, train: bool) -> jax.Array:
        x = layers.conv(
            width, size, use_bias=not self.batch_norm, dtype=self.dtype, name=f"conv{name}"
        )(x)
        if self.batch_norm:
            norm = {"train": train, "dtype": self.dtype, "axis_name": self.bn_axis_name}
            x = layers.batch_norm(x, **norm, name=f"bn{name}")
        return nn.relu(x)
