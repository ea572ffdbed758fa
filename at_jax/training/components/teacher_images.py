"""Images of the teacher: its own size and normalization, as a function of the student's images."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from at_jax import data
from at_jax.errors import UserError
from at_jax.training.settings import TeacherSettings

__all__ = ["TeacherImages", "check", "of_settings"]


@dataclasses.dataclass(frozen=True)
class TeacherImages:
    """A differentiable map from images normalized for the student to those of the teacher.

    It is part of the teacher's forward pass: the teacher's input gradient remains one with respect to the
    student's images.

    Attributes:
      shape: (H, W, C) of the teacher's images.
      mean_s: per channel, of the student's normalization, in 0..255.
      std_s: per channel, as ``mean_s``.
      mean_t: of the teacher's normalization.
      std_t: as ``mean_t``.
    """

    shape: tuple[int, int, int]
    mean_s: tuple[float, ...]
    std_s: tuple[float, ...]
    mean_t: tuple[float, ...]
    std_t: tuple[float, ...]

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map normalized images ``(B, H, W, C)`` to the teacher's ``(B, H', W', C)``."""

        def vector(numbers: tuple[float, ...]) -> jax.Array:  # (1, 1, 1, C)
            return jnp.asarray(numbers, images.dtype).reshape(1, 1, 1, -1)

        pixels = images * vector(self.std_s) + vector(self.mean_s)
        if pixels.shape[1:] != self.shape:
            pixels = jax.image.resize(pixels, (len(pixels), *self.shape), method="bilinear")
        return (pixels - vector(self.mean_t)) / vector(self.std_t)

    def describe(self) -> dict[str, Any]:
        """Differences from the student's images, as in ``Run.description``."""
        return {
            "image_shape": list(self.shape),
            "mean": list(self.mean_t),
            "std": list(self.std_t),
        }


def of_settings(settings: TeacherSettings, dataset: data.Dataset) -> TeacherImages | None:
    """Build the map of a config; None where the teacher's images are those of the student.

    Args:
      settings: of the teacher.
      dataset: with the student's size and normalization.

    Raises:
      UserError: if the normalization has another number of channels.
    """
    height, width, channels = dataset.image_shape
    if settings.mean and len(settings.mean) != channels:
        raise UserError(
            f"teacher.mean and teacher.std must have one number for each of {channels} channels, got "
            f"{settings.mean} and {settings.std}: set both for these channels, or neither"
        )
    if settings.image_size:
        height = width = settings.image_size
    images = TeacherImages(
        (height, width, channels),
        tuple(map(float, dataset.mean)),
        tuple(map(float, dataset.std)),
        tuple(map(float, settings.mean or dataset.mean)),
        tuple(map(float, settings.std or dataset.std)),
    )
    is_same = (images.shape, images.mean_t, images.std_t) == (
        tuple(dataset.image_shape),
        images.mean_s,
        images.std_s,
    )
    return None if is_same else images


def check(dataset: data.Dataset, images: TeacherImages | None, description: dict[str, Any]) -> None:
    """Raise unless a teacher was trained on images of the size and normalization that it is given.

    Args:
      dataset: of the student.
      images: of the teacher; None for those of the student.
      description: of the teacher, see ``Run.description``.

    Raises:
      UserError: naming both.
    """
    shape = list(images.shape if images else dataset.image_shape)
    if description["image_shape"] != shape:
        raise UserError(
            f"teacher and student must see the same images: the data are {shape} (height, width, "
            f"channels), the teacher was trained on {description['image_shape']}: set teacher.image_size "
            "or data.image_size, or choose another teacher"
        )
    mean, std = (images.mean_t, images.std_t) if images else (dataset.mean, dataset.std)
    theirs, ours = (
        [tuple(round(x, 2) for x in values) for values in pair]
        for pair in ((description["mean"], description["std"]), (mean, std))
    )
    if any(abs(a - b) > 0.5 for a, b in zip(sum(theirs, ()), sum(ours, ()), strict=True)):
        raise UserError(
            f"the teacher must see images normalized as in its training: mean and std are {theirs[0]} and "
            f"{theirs[1]} there, {ours[0]} and {ours[1]} here: set "
            f'--config.teacher.mean="{theirs[0]}" --config.teacher.std="{theirs[1]}"'
        )
