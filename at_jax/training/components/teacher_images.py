"""Images of the teacher: its own size and normalization, as a function of the student's images."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from at_jax import data
from at_jax.errors import UserError
from at_jax.training.settings import TeacherSettings

__all__ = ["Normalization", "TeacherImages", "check", "choose", "of_settings"]

# Gray levels by which statistics of the same images may differ, for example after other rounding.
_TOLERANCE = 0.5


class Normalization(NamedTuple):
    """Mean and standard deviation per channel, in 0..255."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Normalization":
        """Take the keys ``mean`` and ``std`` of a description or of a config section.

        >>> Normalization.of({"mean": [127], "std": [128], "name": "net"})
        Normalization(mean=(127.0,), std=(128.0,))
        """
        mean, std = (tuple(float(x) for x in values[key]) for key in cls._fields)
        return cls(mean, std)

    def is_close(self, other: "Normalization") -> bool:
        """Whether both are equal to half a gray level."""
        ours, theirs = ((*each.mean, *each.std) for each in (self, other))
        return len(ours) == len(theirs) and all(
            abs(a - b) <= _TOLERANCE for a, b in zip(ours, theirs, strict=True)
        )

    def as_keys(self, section: str) -> str:
        """Format the flags that set it, for a message.

        >>> Normalization((127.004,), (128.0,)).as_keys("data")
        '--config.data.mean="(127.0,)" --config.data.std="(128.0,)"'
        """
        mean, std = (tuple(round(x, 2) for x in values) for values in self)
        return f'--config.{section}.mean="{mean}" --config.{section}.std="{std}"'


def choose(
    given: Normalization, trained_with: Normalization | None, student: Normalization
) -> Normalization:
    """Choose the normalization of a teacher's images.

    Args:
      given: by the config; empty without one.
      trained_with: that of the teacher's training; None if unknown.
      student: that of the student's images.

    Returns:
      The given one; otherwise that of its training if it differs from the student's.

    >>> student, other = Normalization((127.0,), (128.0,)), Normalization((90.0,), (60.0,))
    >>> choose(Normalization((), ()), other, student) == other
    True
    >>> choose(Normalization((), ()), Normalization((127.1,), (128.2,)), student) == student
    True
    """
    if given.mean:
        return given
    if trained_with is None or len(trained_with.mean) != len(student.mean):
        return student
    return student if trained_with.is_close(student) else trained_with


@dataclasses.dataclass(frozen=True)
class TeacherImages:
    """A differentiable map from images normalized for the student to those of the teacher.

    It is part of the teacher's forward pass: the teacher's input gradient remains one with respect to the
    student's images.

    Attributes:
      shape: (H, W, C) of the teacher's images.
      student: normalization of the student's images.
      teacher: normalization of the teacher's images.
    """

    shape: tuple[int, int, int]
    student: Normalization
    teacher: Normalization

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map normalized images ``(B, H, W, C)`` to the teacher's ``(B, H', W', C)``."""

        def vector(numbers: tuple[float, ...]) -> jax.Array:  # (1, 1, 1, C)
            return jnp.asarray(numbers, images.dtype).reshape(1, 1, 1, -1)

        pixels = images * vector(self.student.std) + vector(self.student.mean)
        if pixels.shape[1:] != self.shape:
            pixels = jax.image.resize(pixels, (len(pixels), *self.shape), method="bilinear")
        return (pixels - vector(self.teacher.mean)) / vector(self.teacher.std)

    def __str__(self) -> str:
        height, width, _ = self.shape
        mean, std = (tuple(round(x, 2) for x in values) for values in self.teacher)
        return f"images of {height}x{width}, normalized with mean {mean} and std {std}"

    def describe(self) -> dict[str, Any]:
        """Differences from the student's images, as in ``Run.description``."""
        return {
            "image_shape": list(self.shape),
            "mean": list(self.teacher.mean),
            "std": list(self.teacher.std),
        }


def of_settings(
    settings: TeacherSettings, dataset: data.Dataset, trained_with: Normalization | None = None
) -> TeacherImages | None:
    """Build the map of a config; None where the teacher's images are those of the student.

    Args:
      settings: of the teacher.
      dataset: with the student's size and normalization.
      trained_with: see :func:`choose`.

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
    student = Normalization.of({"mean": dataset.mean, "std": dataset.std})
    given = Normalization.of({"mean": settings.mean, "std": settings.std})
    teacher = choose(given, trained_with, student)
    shape = (height, width, channels)
    if shape == tuple(dataset.image_shape) and teacher == student:
        return None
    return TeacherImages(shape, student, teacher)


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
    of_data = {"mean": dataset.mean, "std": dataset.std}
    there = Normalization.of(description)
    here = images.teacher if images else Normalization.of(of_data)
    if not there.is_close(here):
        raise UserError(
            f"the teacher was trained with {there.as_keys('teacher')}, got {here.as_keys('teacher')}: "
            "leave teacher.mean and teacher.std empty to use those of its training"
        )
