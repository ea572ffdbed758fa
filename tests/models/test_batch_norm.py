"""Batch normalization: equal to Flax's to every order, and robust where the one-pass variance rounds."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from convolutions import assert_close

from at_jax.models.batch_norm import BatchNorm


def reference(train=True):
    return nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=1e-5, use_fast_variance=False
    )


def variables(dtype, channels=3):
    rng = np.random.default_rng(0)
    scale, bias, mean = (jnp.asarray(rng.normal(size=channels), dtype) for _ in range(3))
    var = jnp.asarray(rng.uniform(0.5, 2, size=channels), dtype)
    return {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": mean, "var": var}}


def activations(dtype, channels=3):
    return jnp.asarray(np.random.default_rng(1).normal(1, 2, size=(4, 5, 6, channels)), dtype)


def derivatives(apply):
    """(params, x) -> gradient, gradient of the norm of the input gradient, forward over reverse."""

    def loss(params, x):
        return jnp.sum(jnp.sin(apply(params, x)))

    gradient = jax.grad(loss, argnums=(0, 1))

    def penalty(params, x):
        return jnp.sum(jnp.sin(gradient(params, x)[1]))

    def everything(params, x):
        tangents = jax.tree.map(jnp.cos, (params, x))
        second = jax.grad(penalty, argnums=(0, 1))(params, x)
        return gradient(params, x), second, jax.jvp(gradient, (params, x), tangents)[1]

    return everything


def test_training_equals_flax_to_second_order_in_float64():
    # Flax mixes dtypes in float64.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        given, x = variables("float64"), activations("float64")

        def ours(params, x):
            return BatchNorm().apply({**given, "params": params}, x, True, mutable=["batch_stats"])

        def flax(params, x):
            return reference().apply({**given, "params": params}, x, mutable=["batch_stats"])

        assert_close(*(f(given["params"], x) for f in (ours, flax)), 1e-13)
        outputs = [lambda *args, f=f: f(*args)[0] for f in (ours, flax)]
        results = [tiny.jit(derivatives(f))(given["params"], x) for f in outputs]
        assert_close(*results, 1e-12)


def test_evaluation_uses_running_statistics_and_leaves_them_alone():
    given, x = variables("float32"), activations("float32")
    y, updated = BatchNorm().apply(given, x, False, mutable=["batch_stats"])
    expected = reference(train=False).apply(given, x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    for name, value in updated["batch_stats"].items():
        np.testing.assert_array_equal(value, given["batch_stats"][name])


def test_initialization_has_the_variables_of_flax():
    x = activations("float32")
    ours = BatchNorm(axis_name="batch").init(jax.random.key(0), x, True)
    expected = reference().init(jax.random.key(0), x)
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


def test_statistics_are_averaged_over_the_named_axis():
    given, x = variables("float32"), activations("float32")
    whole, updated = BatchNorm().apply(given, x, True, mutable=["batch_stats"])
    parts, of_parts = jax.pmap(
        lambda x: BatchNorm("devices").apply(given, x, True, mutable=["batch_stats"]),
        axis_name="devices",
        devices=jax.devices()[:2],
    )(x.reshape(2, 2, *x.shape[1:]))
    np.testing.assert_allclose(parts.reshape(x.shape), whole, atol=1e-5)
    for name, value in of_parts["batch_stats"].items():
        np.testing.assert_allclose(value[1], updated["batch_stats"][name], rtol=1e-5)


@pytest.mark.parametrize("mean", [0.0, 10.0, 1000.0])
def test_constant_channels_give_the_bias_and_finite_gradients(mean):
    given = variables("float32", 2)
    x = jnp.full((4, 8, 8, 2), mean)

    def total(x):
        y, _ = BatchNorm().apply(given, x, True, mutable=["batch_stats"])
        return jnp.sum(y**2), y

    gradient, y = jax.grad(total, has_aux=True)(x)
    bias = jnp.broadcast_to(given["params"]["bias"], y.shape)
    np.testing.assert_allclose(y, bias, atol=1e-6)
    assert np.all(np.isfinite(gradient))


def test_variance_far_from_zero_is_as_exact_as_documented():
    x = activations("float32") + 100
    _, updated = BatchNorm(momentum=0.0).apply(
        variables("float32"), x, True, mutable=["batch_stats"]
    )
    exact = np.var(np.asarray(x, np.float64), axis=(0, 1, 2))
    np.testing.assert_allclose(updated["batch_stats"]["var"], exact, atol=1e-6 * 100**2)
