"""Predicted cost of a training step, in forward passes of the student (S) and of the teacher (T).

A pass visits every convolution once. The three convolutions of a layer (forward, input gradient, weight
gradient) cost the same.

- A plain step takes three passes. The first layer (s) needs no input gradient: 3S - s.
- The gradient of an output with respect to the images adds 3S, however many terms use it: the backward
  pass down to the images, and the derivative of that pass, which is an input gradient and a weight
  gradient of every layer. The final backward pass is shared.
- Applying the student to other images adds 3S - s.
- The frozen teacher takes T, and T more for each gradient with respect to the images.

Elementwise work is not counted. A gradient of a tap is counted in full, although it skips the layers after
the tap. A measured ratio can therefore be below the predicted one.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax.terms import TERMS, Batch, View, needs_teacher, parts
from benchmarks.compiled import multiply_adds

__all__ = ["Passes", "count", "forward_cost"]


@dataclasses.dataclass(frozen=True)
class Passes:
    """Number of passes of one training step.

    Attributes:
      student: passes over the whole student.
      first_layer: passes over its first layer that are not needed.
      teacher: passes over the teacher.
    """

    student: int
    first_layer: int
    teacher: int

    def __str__(self) -> str:
        student = f"{self.student}S - {self.first_layer if self.first_layer > 1 else ''}s"
        teacher = f"{self.teacher if self.teacher > 1 else ''}T"
        return f"{student} + {teacher}" if self.teacher else student

    def cost(self, student: float, first_layer: float, teacher: float) -> float:
        """Total cost, from the costs of one pass in any common unit."""
        return self.student * student - self.first_layer * first_layer + self.teacher * teacher


class _CountingView(View):
    """A forward pass of a toy network that records which gradients are taken."""

    def __init__(self, images: jax.Array):
        def forward(images: jax.Array) -> Any:
            return (jnp.mean(images, axis=(1, 2)), {_POINT: images}), None

        super().__init__(forward, images, jnp.zeros(len(images), jnp.int32))
        # Function and temperature; the functions are kept, so that no id is used twice.
        self.functions: dict[tuple[int, float], Any] = {}

    def gradient(self, of: Any = None, *, temperature: float = 1.0) -> jax.Array:
        """As :meth:`at_jax.terms.View.gradient`."""
        self.functions[id(of), temperature] = of
        return super().gradient(of, temperature=temperature)


_POINT = "point"


@functools.cache
def count(method: str) -> Passes:
    """Count the passes of a method, by tracing its terms on a toy network.

    Args:
      method: ``"none"``, or names of terms joined by ``+``.

    >>> str(count("none")), str(count("at+kd")), str(count("gradient_at"))
    ('3S - s', '3S - s + T', '6S - s + 2T')
    """
    students: list[_CountingView] = []
    teachers: list[_CountingView] = []

    def trace(images: jax.Array) -> list[jax.Array]:
        def student_at(images: jax.Array) -> View:
            students.append(_CountingView(images))
            return students[-1]

        teachers.append(_CountingView(images))
        keys = jax.random.split(jax.random.key(0), len(images))
        labels = jnp.zeros(len(images), jnp.int32)
        points = ((_POINT, _POINT),)
        batch = Batch(images, labels, keys, student_at(images), teachers[0], points, student_at)
        return [TERMS[name]().values(batch, None) for name in parts(method)]

    jax.eval_shape(trace, jax.ShapeDtypeStruct((1, 2, 2, 2), jnp.float32))
    gradients = sum(len(view.functions) for view in students)
    of_teacher = int(needs_teacher(method)) + len(teachers[0].functions)
    return Passes(3 * len(students) + 3 * gradients, len(students), of_teacher)


def forward_cost(module: nn.Module, image_size: int) -> tuple[int, int]:
    """Count the multiply-adds of a forward pass over one image, in convolutions and matrix products.

    Args:
      module: the network.
      image_size: height and width of the RGB image, in pixels.

    Returns:
      Multiply-adds of the whole network, and of its first layer.
    """
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    jaxpr = jax.make_jaxpr(module.apply)(variables, images)
    layers = list(multiply_adds(jaxpr.jaxpr))
    return sum(layers), layers[0]
