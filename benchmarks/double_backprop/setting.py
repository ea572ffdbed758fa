"""Networks, random images and devices of a benchmark."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from at_jax import models
from at_jax.distributed import compilation, devices
from at_jax.errors import UserError
from at_jax.training.components import tracing

__all__ = ["CLASSES", "Setting", "split_pair"]

CLASSES = 10


def split_pair(pair: str) -> tuple[str, str]:
    """Split the value of ``--pair``.

    Raises:
      UserError: if it is not ``student<-teacher``.

    >>> split_pair("wrn_16_1 <- wrn_16_2")
    ('wrn_16_1', 'wrn_16_2')
    """
    student, _, teacher = (part.strip() for part in pair.partition("<-"))
    if not (student and teacher):
        raise UserError(
            f"--pair must be student<-teacher, got {pair!r}: for example wrn_16_1<-wrn_16_2"
        )
    return student, teacher


@functools.cache
def _compiled_init(module: nn.Module) -> Any:
    """Initialization of a network, compiled once for all seeds."""
    return jax.jit(module.init, compiler_options=compilation.quick_options())


@dataclasses.dataclass(frozen=True)
class Setting:
    """Networks, images and devices that all rows share.

    Attributes:
      student: its name for :func:`at_jax.models.build`.
      teacher: its name.
      image_size: height and width, in pixels.
      batch: images per step, over all devices.
      dtype: of the networks' arithmetic.
      devices: to split a batch over.
    """

    student: str
    teacher: str
    image_size: int
    batch: int
    dtype: str
    devices: tuple[jax.Device, ...]

    def module(self, name: str) -> nn.Module:
        """Build a network in the setting's dtype."""
        return models.build(name, CLASSES, jnp.dtype(self.dtype))

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """Random normalized images (B, H, W, 3) float32, and labels (B,)."""
        rng = np.random.default_rng(0)
        images = rng.standard_normal((self.batch, self.image_size, self.image_size, 3))
        return images.astype(np.float32), rng.integers(0, CLASSES, self.batch).astype(np.int32)

    def shards(self) -> dict[str, np.ndarray]:
        """The images as a batch of the training step, split over the devices."""
        images, labels = self.images()
        position = np.arange(self.batch, dtype=np.int32)
        batch = {"image": images, "label": labels, "position": position}
        return devices.shard(batch, len(self.devices))

    def variables(self, name: str, seed: int) -> Any:
        """Initial variables of a network, on the host."""
        image = jnp.zeros((1, self.image_size, self.image_size, 3))
        return jax.device_get(_compiled_init(self.module(name))(jax.random.key(seed), image))

    def compile(self, mapped: Any, *arguments: Any) -> Any:
        """Compile a training step that is mapped over the devices, with the options of the trainer."""
        options = compilation.step_options(self.devices[0].platform)
        return mapped.lower(*arguments).compile(compiler_options=options)

    def taps(self, name: str, whose: str) -> dict[str, jax.ShapeDtypeStruct]:
        """Transfer points of a network and their shapes.

        Args:
          name: of the network.
          whose: ``"student"`` or ``"teacher"``, for messages.
        """
        shape = (self.image_size, self.image_size, 3)
        return tracing.shapes(self.module(name), shape, whose).taps
