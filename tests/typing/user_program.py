"""A training loss as a user of the library would write it. test_typing.py runs mypy --strict on it."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from at_jax import agreement, gradients, intermediates, losses, maps, models
from at_jax.errors import UserError

Variables = Mapping[str, Any]


def taps_of(module: nn.Module, variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
    """Activations at the transfer points."""
    _, mutated = module.apply(variables, images, mutable=["intermediates"])
    return intermediates.collect(mutated)


def transfer(
    student: nn.Module,
    variables_s: Variables,
    taps_t: Mapping[str, jax.Array],
    images: jax.Array,
    labels: jax.Array,
) -> jax.Array:
    """Cross-entropy, attention transfer and a gradient penalty, from one forward pass."""

    def loss(x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits, taps, _ = intermediates.forward(student, variables_s, x, train=False)
        return losses.cross_entropy(logits, labels), taps

    (hard, taps_s), j = gradients.value_and_input_gradient(loss, images, has_aux=True)
    kind: losses.Kind = "sum"
    attention = [
        losses.attention_transfer(taps_s[point], taps_t[point], kind=kind, p=2, convention="code")
        for point in taps_t
    ]
    penalty = gradients.gradient_penalty(j, squared=True)
    return jnp.mean(hard + 1e3 * jnp.sum(jnp.stack(attention), axis=0) + 0.1 * penalty)


def differentiate(images: jax.Array, has_aux: bool) -> jax.Array:
    """Input gradient of a loss whose result depends on a variable."""

    def loss(x: jax.Array) -> Any:
        values = jnp.sum(x**2, axis=(1, 2, 3))
        return (values, x) if has_aux else values

    _, j = gradients.value_and_input_gradient(loss, images, has_aux)
    return j


def compare(a: np.ndarray, labels: np.ndarray) -> tuple[jax.Array, np.ndarray, np.ndarray]:
    """Losses of NumPy arrays, and agreement of JAX arrays."""
    attention = losses.attention_transfer(a, 2 * a, p=3)
    penalty = gradients.gradient_penalty(maps.pool(a, (2, 2)))
    logits = jnp.stack([attention, penalty], axis=-1)
    soft = losses.distillation(np.asarray(logits), logits, labels, temperature=4.0, alpha=0.9)
    counts = agreement.confusion(labels, jnp.argmax(logits, axis=-1), 2)
    return soft, counts, agreement.correlation(maps.sum_map(a), a[..., 0])


def main() -> jax.Array:
    """Evaluate the loss of a random student and a random teacher."""
    student, teacher = models.build("wrn_10_1"), models.build("wrn_10_2")
    images, labels = jnp.ones((2, 8, 8, 3)), jnp.array([0, 1])
    variables_s = student.init(jax.random.key(0), images)
    taps_t = taps_of(teacher, teacher.init(jax.random.key(1), images), images)
    attention_map: jax.Array = maps.normalize(maps.sum_map(taps_t["group3"]))
    try:
        maps.sum_map(attention_map)
    except UserError as error:
        print(error)
    return transfer(student, variables_s, taps_t, images, labels)
