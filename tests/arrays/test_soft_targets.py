"""Soft labels, and distillation at high temperatures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from at_jax import losses

LABELS = jnp.array([0, 3, 1, 4])


def logits(seed=0, shape=(4, 5)):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def distil_labels(z, labels):
    return losses.distillation(z, logits(1), labels, temperature=4.0, alpha=0.5)


@pytest.mark.parametrize("transform", [lambda loss: loss, jax.jit])
def test_cross_entropy_of_soft_labels_by_hand(transform):
    # softmax(0, log 3) = (1/4, 3/4): 1/3 log 4 + 2/3 log(4/3).
    z, labels = jnp.log(jnp.array([[1.0, 3.0]])), jnp.array([[1 / 3, 2 / 3]])
    result = transform(losses.cross_entropy)(z, labels)
    np.testing.assert_allclose(result, [np.log(4) / 3 + 2 / 3 * np.log(4 / 3)], rtol=1e-6)


@pytest.mark.parametrize("loss", [losses.cross_entropy, distil_labels])
def test_losses_of_one_hot_labels_equal_those_of_indices(loss):
    z, one_hot = logits(), jax.nn.one_hot(LABELS, 5)
    np.testing.assert_allclose(loss(z, one_hot), loss(z, LABELS), rtol=1e-6)
    of_rows, of_indices = (
        jax.grad(lambda z, labels=labels: jnp.sum(loss(z, labels)))(z)
        for labels in (one_hot, LABELS)
    )
    np.testing.assert_allclose(of_rows, of_indices, atol=1e-6)


def test_cross_entropy_of_soft_labels_has_numerical_derivatives_of_order_two():
    labels = jax.nn.softmax(logits(1))
    with jax.enable_x64(True):
        z, y = logits().astype(jnp.float64), labels.astype(jnp.float64)
        check_grads(lambda z: losses.cross_entropy(z, y), (z,), order=2, modes=["rev"])


def test_cross_entropy_of_a_masked_class_without_probability_is_that_of_the_others():
    z, labels = jnp.array([[0.0, 0.0, -jnp.inf]]), jnp.array([[0.5, 0.5, 0.0]])
    gradient = jax.grad(lambda z: losses.cross_entropy(z, labels)[0])(z)
    np.testing.assert_allclose(losses.cross_entropy(z, labels), [np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(gradient, jnp.zeros((1, 3)), atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_cross_entropy_of_soft_labels_keeps_the_dtype_of_logits(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        labels = jnp.full((4, 5), 0.2, dtype)
        assert losses.cross_entropy(logits(), labels).dtype == jnp.float32


def test_cross_entropy_of_soft_labels_with_nan_is_nan():
    labels = jnp.full((4, 5), 0.2).at[1, 2].set(jnp.nan)
    z = logits().at[2, 0].set(jnp.nan)
    values = losses.cross_entropy(z, labels)
    np.testing.assert_array_equal(jnp.isnan(values), [False, True, True, False])


def test_gradient_with_respect_to_soft_labels_is_the_negative_log_probability():
    # Also at a label of 0: a share of mixup may be trained.
    z, labels = logits(), jax.nn.one_hot(LABELS, 5)
    gradient = jax.grad(lambda y: jnp.sum(losses.cross_entropy(z, y)))(labels)
    np.testing.assert_allclose(gradient, -jax.nn.log_softmax(z), rtol=1e-6)


def divergence(s, t, temperature):
    """T^2 KL(t || s) in float64, from the definition."""
    s, t = (np.asarray(z, np.float64) / temperature for z in (s, t))
    log_s, log_t = (z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True)) for z in (s, t))
    return temperature**2 * np.sum(np.exp(log_t) * (log_t - log_s), axis=-1)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0, 100.0])
@pytest.mark.parametrize(
    ("difference", "tolerance"), [(0.01, 2e-3), (1.0, 2e-5), (30.0, 2e-6)], ids=str
)
def test_distillation_is_accurate_at_high_temperatures_and_for_close_logits(
    temperature, difference, tolerance
):
    # The usual form, sum of t log(t / s), gave negative values from a temperature of 20 on.
    t = logits(2, (16, 100))
    s = t + difference * logits(3, t.shape)
    labels = jnp.zeros(16, int)
    found = losses.distillation(s, t, labels, temperature=temperature, alpha=1.0)
    np.testing.assert_allclose(found, divergence(s, t, temperature), rtol=tolerance)


@pytest.mark.parametrize("temperature", [1.0, 100.0])
def test_gradient_of_distillation_is_the_difference_of_probabilities(temperature):
    # d/ds T^2 KL(t || s) = T (softmax(s / T) - softmax(t / T)).
    s, t, labels = logits(0), logits(1), jnp.zeros(4, int)

    def loss(s):
        return jnp.sum(losses.distillation(s, t, labels, temperature=temperature, alpha=1.0))

    difference = jax.nn.softmax(s / temperature) - jax.nn.softmax(t / temperature)
    np.testing.assert_allclose(jax.grad(loss)(s), temperature * difference, rtol=1e-3, atol=1e-5)
