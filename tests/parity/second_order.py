"""Losses that hold input gradients: the library's gradient beside PyTorch's and beside differences.

Shared by test_second_order.py (float32) and check_second_order.py (float64, a process of its own).
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tiny
from flax import traverse_util
from parity import cases, networks

from at_jax import models
from at_jax.objective import Objective
from at_jax.terms import Attention, Distillation, InputGradient

TERMS = ("gradient_at", "flip_symmetry", "min_l2")
CASES = [*(f"{form}/{term}" for form in ("plain", "squared") for term in TERMS), "plain/together"]
# Module: shapes of the reference, gain of its weights, transfer points.
NETWORKS = {
    "wrn_10_1": (networks.wide_resnet_shapes(10), 1, ("group1", "group2", "group3")),
    "nin_thin": (networks.nin_shapes(10), 2, ("stage1", "stage2", "stage3")),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """One network as student and, with other weights, as teacher; what PyTorch found, by case."""

    module: nn.Module
    shapes: dict
    points: tuple
    student: dict
    teacher: dict
    images: jax.Array
    labels: jax.Array
    stored: dict[str, Any]

    @functools.cache  # noqa: B019
    def _compiled(self, form):
        """Loss and gradient of (params, weights): one program for all cases of a form."""
        terms = dict.fromkeys(TERMS, InputGradient(squared=form == "squared"))
        if form == "plain":  # Beside other terms, so that "together" needs no program of its own.
            terms["attention"] = Attention()
            terms["distillation"] = Distillation(temperature=4.0, alpha=0.9)
        points = tuple((point, point) for point in self.points)
        objective = Objective(self.module, self.module, points, **terms)

        def loss(params, weights):
            statistics = self.student["batch_stats"]
            return objective(
                {"student": params}, statistics, self.teacher, self.images, self.labels, weights
            )[0]

        return tiny.jit(jax.value_and_grad(loss))

    def loss_and_gradient(self, name, params):
        form, term = name.split("/")
        present = ("gradient_at", "attention") if term == "together" else (term,)
        beta = self.stored["beta"]
        weights = dict.fromkeys((*TERMS, "attention"), 0.0) | dict.fromkeys(present, beta)
        weights = {key: jnp.asarray(value, self.images.dtype) for key, value in weights.items()}
        return self._compiled(form)(params, weights)

    def deviations(self, name):
        """From PyTorch's loss and from each leaf of its gradient, as shares of their norms."""
        loss, gradient = self.loss_and_gradient(name, self.student["params"])
        wanted = self.stored[f"{name}/loss"]
        errors = {"loss": abs(float(loss) - wanted) / wanted}
        leaves = networks.from_flax(gradient, self.shapes)
        norms, sketches = (self.stored[f"{name}/{key}"] for key in ("norms", "sketches"))
        for (key, leaf), norm, sketch in zip(leaves.items(), norms, sketches, strict=True):
            assert leaf.dtype == self.images.dtype, (key, leaf.dtype)
            distance = np.sqrt(np.mean((networks.sketch(key, leaf) - sketch) ** 2))
            errors[key] = distance / norm
        return errors

    def from_central_difference(self, name, step=1e-7):
        """How far the derivative in one direction of norm 1 is from the gradient's word, as a share.

        J jumps where a ReLU switches, so the step stays far below the fixture's margin (design 4.17).
        """
        params = self.student["params"]
        gradient = traverse_util.flatten_dict(self.loss_and_gradient(name, params)[1])
        random = np.random.default_rng(0)
        # Half along the gradient, or rounding would drown the derivative; half random, for an error
        # across it. Divided by the norm of the leaf, each leaf adds as much to the derivative.
        direction = {
            key: (_unit(leaf) + _unit(random.standard_normal(leaf.shape))) / np.linalg.norm(leaf)
            for key, leaf in gradient.items()
        }
        norm = np.sqrt(sum(np.sum(part**2) for part in direction.values()))
        direction = {key: part / norm for key, part in direction.items()}
        expected = sum(np.sum(gradient[key] * part) for key, part in direction.items())
        tree = traverse_util.unflatten_dict(direction)

        def along(distance):
            moved = jax.tree.map(lambda x, d: x + distance * d, params, tree)
            return float(self.loss_and_gradient(name, moved)[0])

        return abs((along(step) - along(-step)) / (2 * step) - expected) / abs(expected)


def _unit(x):
    return np.asarray(x) / np.linalg.norm(x)


def load(name, dtype):
    shapes, gain, points = NETWORKS[name]

    def variables(prefix):
        state_dict = networks.generated(shapes, prefix, gain)
        return jax.tree.map(lambda x: jnp.asarray(x, dtype), networks.to_flax(state_dict))

    with np.load(cases.FOLDER / "second_order.npz") as file:
        stored = {
            key.removeprefix(f"{name}/"): value
            for key, value in file.items()
            if key.startswith(f"{name}/")
        }
    return Study(
        models.build(name, num_classes=10, dtype=dtype),
        shapes,
        points,
        variables(""),
        variables("teacher "),
        jnp.asarray(stored["images"], dtype),
        jnp.asarray(stored["labels"]),
        stored,
    )
