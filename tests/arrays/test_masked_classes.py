"""Distillation where a teacher's class has no probability, and where a share of the loss is 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from at_jax import agreement, losses

INF, NAN = np.inf, np.nan
# A probability that is not exactly 0, but rounds to it.
MASKS = [-INF, -1e9, float(np.finfo(np.float32).min)]


def distil(s, t, labels, alpha, temperature=1.0):
    options = {"temperature": temperature, "alpha": alpha}
    return jnp.sum(losses.distillation(s, t, labels, **options))


@pytest.fixture(params=[lambda f: f, jax.jit], ids=["eager", "jit"])
def compiled(request):
    return request.param


@pytest.mark.parametrize("mask_t", MASKS)
@pytest.mark.parametrize("mask_s", MASKS)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_of_a_class_without_probability_is_that_of_the_others(
    compiled, mask_s, mask_t, temperature
):
    s, t = jnp.array([[0.0, 1.0, mask_s]]), jnp.array([[1.0, 0.5, mask_t]])
    labels = jnp.array([0])

    @compiled
    def derivatives(s, t):
        """Value, gradients with respect to both, gradient of the student's gradient."""
        of = lambda s, t: distil(s, t, labels, 1.0, temperature)  # noqa: E731
        second = jax.grad(lambda s: jnp.sum(jax.grad(of)(s, t)[:, :2] ** 2))(s)
        return *jax.value_and_grad(of, argnums=(0, 1))(s, t), second

    value, first, second = derivatives(s, t)
    expected, expected_first, expected_second = derivatives(s[:, :2], t[:, :2])
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for found, wanted in zip((*first, second), (*expected_first, expected_second), strict=True):
        np.testing.assert_allclose(found, np.append(wanted, [[0]], axis=1), atol=1e-6)


@pytest.mark.parametrize("mask_t", MASKS)
@pytest.mark.parametrize("mask_s", MASKS)
def test_divergence_of_a_class_without_probability_is_that_of_the_others(mask_s, mask_t):
    s, t = np.array([[0.0, 1.0, mask_s]]), np.array([[1.0, 0.5, mask_t]])
    expected = agreement.divergence(s[:, :2], t[:, :2])
    np.testing.assert_allclose(agreement.divergence(s, t), expected, rtol=1e-12)


# Example 0 has an infinite loss in the share that is 0, the other examples have finite losses.
CROSS_ENTROPY_INFINITE = [[-INF, 2.0, 1.0], [1.0, 2.0, 0.5]], [[-INF, 2.0, 1.0], [0.0, 1.0, 1.0]]
DIVERGENCE_INFINITE = [[1.0, 2.0, -INF], [1.0, 2.0, 0.5]], [[1.0, 2.0, 1.0], [0.0, 1.0, 1.0]]
SOFT_LABELS = [[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]


@pytest.mark.parametrize("traces_alpha", [False, True])
@pytest.mark.parametrize("labels", [[0, 1], [-1, 1], SOFT_LABELS, [[NAN] * 3, [0.2, 0.3, 0.5]]])
@pytest.mark.parametrize("logits", [CROSS_ENTROPY_INFINITE, DIVERGENCE_INFINITE[::-1]])
def test_distillation_without_labels_is_the_divergence(traces_alpha, labels, logits):
    (s, t), labels = map(jnp.array, logits), jnp.array(labels)
    plain = lambda s, t: distil(s, t, labels, 1)  # noqa: E731
    traced = lambda s, t: jax.jit(distil)(s, t, labels, 1.0)  # noqa: E731
    differentiated = jax.value_and_grad(traced if traces_alpha else plain, argnums=(0, 1))
    value, (slope_s, slope_t) = differentiated(s, t)
    np.testing.assert_allclose(value, np.sum(agreement.divergence(s, t)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(slope_s, jax.nn.softmax(s) - jax.nn.softmax(t), atol=1e-6)
    assert np.all(np.isfinite(slope_t))


@pytest.mark.parametrize("traces_alpha", [False, True])
@pytest.mark.parametrize("logits", [DIVERGENCE_INFINITE, (DIVERGENCE_INFINITE[0], [[NAN] * 3] * 2)])
def test_distillation_without_soft_targets_is_the_cross_entropy(traces_alpha, logits):
    (s, t), labels = map(jnp.array, logits), jnp.array([0, 1])
    plain = lambda s, t: distil(s, t, labels, 0)  # noqa: E731
    traced = lambda s, t: jax.jit(distil)(s, t, labels, 0.0)  # noqa: E731
    differentiated = jax.value_and_grad(traced if traces_alpha else plain, argnums=(0, 1))
    value, (slope_s, slope_t) = differentiated(s, t)
    np.testing.assert_allclose(value, jnp.sum(losses.cross_entropy(s, labels)), rtol=1e-6)
    np.testing.assert_allclose(slope_s, jax.nn.softmax(s) - jax.nn.one_hot(labels, 3), atol=1e-6)
    np.testing.assert_array_equal(slope_t, np.zeros((2, 3)))


def test_distillation_with_a_share_of_the_labels_is_nan_for_a_label_out_of_range():
    s, t = jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros((2, 2))
    values = losses.distillation(s, t, jnp.array([-1, 1]), temperature=1.0, alpha=0.999)
    np.testing.assert_array_equal(np.isnan(values), [True, False])


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_distillation_has_a_derivative_with_respect_to_a_share_of_zero(alpha):
    # d/d alpha of alpha T^2 KL + (1 - alpha) CE is T^2 KL - CE, at the ends of 0..1 too.
    s, t, labels = jnp.array([[0.0, 1.0]]), jnp.array([[2.0, 0.0]]), jnp.array([1])
    slope = jax.grad(distil, argnums=3)(s, t, labels, alpha)
    expected = distil(s, t, labels, 1.0) - distil(s, t, labels, 0.0)
    np.testing.assert_allclose(slope, expected, rtol=1e-6)
