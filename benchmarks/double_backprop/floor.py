"""The least that a training step costs, in forward passes of the student (S) and of the teacher (T).

A pass visits every convolution once, and costs the same in each of the three members of the family
(forward, input gradient, weight gradient). A plain step makes three passes; the first layer (s) is
spared the input gradient. A term on J = dL/dx adds the pass down to the image, and the reverse of that
pass: up through the network again, and a second weight gradient of every layer. The backward pass that
follows is the one that the cross-entropy needs anyway. So 6S - s against 3S - s.
"""

import dataclasses
import math
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax import methods


@dataclasses.dataclass(frozen=True)
class Passes:
    """How often a step visits the student, its first layer and the teacher: s is subtracted."""

    student: int
    first_layer: int
    teacher: int

    def __str__(self):
        student = f"{self.student}S - {self.first_layer if self.first_layer > 1 else ''}s"
        teacher = f"{self.teacher if self.teacher > 1 else ''}T"
        return f"{student} + {teacher}" if self.teacher else student

    def cost(self, student: float, first_layer: float, teacher: float) -> float:
        """The sum, in whatever unit the costs of one pass are given."""
        return self.student * student - self.first_layer * first_layer + self.teacher * teacher


def passes(method: str) -> Passes:
    """The passes of a method.

    >>> str(passes("none")), str(passes("at+kd")), str(passes("gradient_at"))
    ('3S - s', '3S - s + T', '6S - s + 2T')
    """
    parts = methods.parts_of(method)
    teacher = 2 if "gradient_at" in parts else int(methods.needs_teacher(method))
    if "flip_symmetry" in parts:
        return Passes(12, 2, teacher)  # all of it again at the mirrored images
    if "gradient_at" in parts or "min_l2" in parts:
        return Passes(6, 1, teacher)
    return Passes(3, 1, teacher)


def forward_cost(module: nn.Module, image_size: int) -> tuple[int, int]:
    """Multiply-adds of one image's forward pass, in convolutions and matrix products.

    Args:
      module: the network.
      image_size: pixels a side, RGB.

    Returns:
      Of the whole network, and of its first layer.
    """
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    jaxpr = jax.make_jaxpr(module.apply)(variables, images)
    layers = list(_multiply_adds(jaxpr.jaxpr))
    return sum(layers), layers[0]


def _multiply_adds(jaxpr) -> Iterator[int]:
    """Of every convolution and matrix product, in the order of the program."""
    for equation in jaxpr.eqns:
        shapes = [variable.aval.shape for variable in equation.invars]
        result = equation.outvars[0].aval.shape
        if equation.primitive.name in ("at_conv", "conv_general_dilated"):
            yield math.prod(result) * math.prod(shapes[1][:-1])  # (kh, kw, C, F)
        elif equation.primitive.name == "dot_general":
            yield math.prod(result) * math.prod(shapes[1][:-1])  # (C, K)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _multiply_adds(inner)
