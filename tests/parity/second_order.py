"""Losses that contain input gradients: the library's gradient against PyTorch's and against differences.

Shared by test_second_order.py (float32) and check_second_order.py (float64, in a separate process).
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
from at_jax.terms import AttentionTransfer, Distillation, FlipSymmetry, GradientTransfer, MinL2

TERMS = {term.name: term for term in (GradientTransfer, FlipSymmetry, MinL2)}
CASES = [*(f"{form}/{term}" for form in ("plain", "squared") for term in TERMS), "plain/together"]
# Module: shapes of the reference, gain of its weights, transfer points.
NETWORKS = {
    "wrn_10_1": (networks.wide_resnet_shapes(10), 1, ("group1", "group2", "group3")),
    "nin_thin": (networks.nin_shapes(10), 2, ("stage1", "stage2", "stage3")),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """One network as student and, with other weights, as teacher; PyTorch's results by case."""

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
        terms = [term(squared=form == "squared") for term in TERMS.values()]
        if form == "plain":  # With the other terms of "together": one program serves all cases.
            terms += [AttentionTransfer(), Distillation(temperature=4.0, alpha=0.9)]
        points = tuple((point, point) for point in self.points)
        objective = Objective(self.module, self.module, tuple(terms), points)
        collections = {"batch_stats": self.student["batch_stats"]}

        def loss(params, weights):
            return objective(
                {"student": params}, collections, self.teacher, self.images, self.labels, weights
            )[0]

        return tiny.jit(jax.value_and_grad(loss))

    def loss_and_gradient(self, name, params):
        form, term = name.split("/")
        present = ("gradient_at", "at") if term == "together" else (term,)
        beta = self.stored["beta"]
        others = (*TERMS, "at") if form == "plain" else TERMS
        weights = dict.fromkeys(others, 0.0) | dict.fromkeys(present, beta)
        weights = {key: jnp.asarray(value, self.images.dtype) for key, value in weights.items()}
        return self._compiled(form)(params, weights)

    def deviations(self, name):
        """Relative distance from PyTorch's loss and from each leaf of its gradient."""
        loss, gradient = self.loss_and_gradient(name, self.student["params"])
        expected = self.stored[f"{name}/loss"]
        errors = {"loss": abs(float(loss) - expected) / expected}
        leaves = networks.from_flax(gradient, self.shapes)
        norms, sketches = (self.stored[f"{name}/{key}"] for key in ("norms", "sketches"))
        for (key, leaf), norm, sketch in zip(leaves.items(), norms, sketches, strict=True):
            assert leaf.dtype == self.images.dtype, (key, leaf.dtype)
            distance = np.sqrt(np.mean((networks.sketch(key, leaf) - sketch) ** 2))
            errors[key] = distance / norm
        return errors

    def from_central_difference(self, name, step=1e-7):
        """Relative difference of the derivative in one direction of norm 1 from the gradient's.

        J is discontinuous where a ReLU switches, so the step is far below the fixture's margin.
        """
        params = self.student["params"]
        gradient = traverse_util.flatten_dict(self.loss_and_gradient(name, params)[1])
        random = np.random.default_rng(0)
        # Half along the gradient, so that the derivative exceeds rounding errors; half random, to detect
        # an error orthogonal to it. Division by the norm of the leaf gives each leaf the same influence.
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
