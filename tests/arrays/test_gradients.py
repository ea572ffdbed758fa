"""Input gradients and their terms: by hand, at zero, independent of batch and devices, second order."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.test_util import check_grads

from at_jax import gradients, losses
from at_jax.conv import conv_general_dilated
from at_jax.errors import UserError


def j(*values):
    """Examples of 1x2 pixels, one channel."""
    return jnp.asarray(values, jnp.float32).reshape(-1, 1, 2, 1)


@pytest.mark.parametrize("compiled", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize(
    ("term", "arguments", "plain", "squared"),
    [
        # (3, 4) - (0, 0): |.| = 5, half of it 2.5; half of 25 is 12.5.
        (gradients.gradient_transfer, (j(3, 4), j(0, 0)), 2.5, 12.5),
        # The mirror image of (4, 0) is (0, 4): (3, 4) - (0, 4) = (3, 0).
        (gradients.flip_symmetry, (j(3, 4), j(4, 0)), 1.5, 4.5),
        (gradients.gradient_penalty, (j(6, 8),), 5.0, 50.0),
    ],
)
def test_terms_by_hand(compiled, term, arguments, plain, squared):
    np.testing.assert_allclose(compiled(term)(*arguments), [plain], rtol=1e-6)
    squared_term = compiled(functools.partial(term, squared=np.bool_(True)))
    np.testing.assert_allclose(squared_term(*arguments), [squared], rtol=1e-6)


@pytest.mark.parametrize("squared", [False, True])
def test_terms_of_zero_are_zero_with_zero_gradient(squared):
    same = j(3, 4, 0, 0)
    mirrored = same[:, :, ::-1]
    for term in (
        lambda a: gradients.gradient_transfer(a, same, squared=squared),
        lambda a: gradients.flip_symmetry(a, mirrored, squared=squared),
        lambda a: gradients.gradient_penalty(a - same, squared=squared),
    ):
        value, slope = jax.value_and_grad(lambda a, term=term: jnp.sum(term(a)))(same)
        assert value == 0
        np.testing.assert_array_equal(slope, jnp.zeros_like(same))


def test_gradient_penalty_of_half_precision_and_large_gradients_is_finite():
    value = gradients.gradient_penalty(j(30_000, 40_000).astype(jnp.float16))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, [25_000], rtol=1e-3)
    np.testing.assert_allclose(gradients.gradient_penalty(j(3e30, 4e30)), [2.5e30], rtol=1e-6)


def test_value_and_input_gradient_gives_each_example_its_own_gradient():
    net = tiny.TinyNet(batch_norm=False)
    images = tiny.prepare(None, jnp.asarray(tiny.batch(4)["image"]), None)
    labels = jnp.asarray(tiny.batch(4)["label"])
    variables = tiny.jit(net.init)(jax.random.key(0), images)

    @tiny.jit
    def value_and_input_gradient(images, labels):
        def loss(x):
            return losses.cross_entropy(net.apply(variables, x, train=True), labels)

        return gradients.value_and_input_gradient(loss, images)

    values, whole = value_and_input_gradient(images, labels)
    chex.assert_shape(values, (4,))
    for i in range(4):
        one = slice(i, i + 1)
        _, alone = value_and_input_gradient(images[one], labels[one])
        np.testing.assert_allclose(whole[one], alone, rtol=1e-5, atol=1e-8)


def test_value_and_input_gradient_with_aux_returns_it():
    (values, aux), slope = gradients.value_and_input_gradient(
        lambda x: (jnp.sum(x**2, axis=(1, 2, 3)), {"twice": 2 * x}), j(1, 2), has_aux=True
    )
    np.testing.assert_allclose(values, [5.0])
    np.testing.assert_allclose(aux["twice"], j(2, 4))
    np.testing.assert_allclose(slope, j(2, 4))


def test_terms_on_input_gradients_have_numerical_derivatives():
    """A gradient of a gradient through convolution, batch statistics and norm.

    The network is smooth, so no difference quotient crosses a jump of J.
    """
    key_image, key_kernel, key_target = jax.random.split(jax.random.key(0), 3)
    images = jax.random.normal(key_image, (3, 6, 6, 2))
    target = jax.random.normal(key_target, images.shape)
    kernel = 0.3 * jax.random.normal(key_kernel, (3, 3, 2, 4))

    def loss(kernel, x):
        y = conv_general_dilated(
            x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        y = y - jnp.mean(y, axis=(0, 1, 2), keepdims=True)
        return jnp.sum(jnp.tanh(y) ** 2, axis=(1, 2, 3))

    @jax.jit
    def terms(kernel):
        _, slope = gradients.value_and_input_gradient(functools.partial(loss, kernel), images)
        flipped = images[:, :, ::-1]
        _, mirrored = gradients.value_and_input_gradient(functools.partial(loss, kernel), flipped)
        return jnp.sum(
            gradients.gradient_transfer(slope, target)
            + gradients.flip_symmetry(slope, mirrored)
            + gradients.gradient_penalty(slope, squared=True)
        )

    check_grads(terms, (kernel,), order=1, modes=("rev",), atol=2e-2, rtol=2e-2)


def test_gradient_penalty_on_one_device_and_on_four_has_equal_gradients():
    """With synchronized statistics, at a large weight; a mean inside J would be off by 40 %."""
    net = tiny.TinyNet(bn_axis_name="batch")
    images = tiny.prepare(None, jnp.asarray(tiny.batch(8)["image"]), None)
    labels = jnp.asarray(tiny.batch(8)["label"])
    variables = tiny.jit(tiny.TinyNet().init)(jax.random.key(0), images)

    def penalized(variables, images, labels):
        def total(params):
            def loss(x):
                logits, _ = net.apply(
                    {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
                )
                return losses.cross_entropy(logits, labels)

            values, slope = gradients.value_and_input_gradient(loss, images)
            return jnp.mean(values + 1e4 * gradients.gradient_penalty(slope))

        return jax.lax.pmean(jax.grad(total)(variables["params"]), "batch")

    def on(count):
        mapped = jax.pmap(
            penalized, axis_name="batch", in_axes=(None, 0, 0), out_axes=None,
            devices=jax.devices()[:count],
        )  # fmt: skip
        parts = (x.reshape(count, -1, *x.shape[1:]) for x in (images, labels))
        return mapped(variables, *parts)

    for one, four in zip(jax.tree.leaves(on(1)), jax.tree.leaves(on(4)), strict=True):
        np.testing.assert_allclose(four, one, atol=1e-5 * np.max(np.abs(one)), rtol=0)


def test_value_and_input_gradient_of_bad_arguments_raises_user_error():
    with pytest.raises(UserError, match="images must be floating point, got uint8: normalize"):
        gradients.value_and_input_gradient(lambda x: x, jnp.zeros((1, 2, 2, 1), jnp.uint8))
    with pytest.raises(UserError, match=r"one number per example, shape \(1,\), got \(\): do not"):
        gradients.value_and_input_gradient(jnp.mean, j(1, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: gradients.gradient_transfer(j(1, 2), j(1, 2, 3, 4)),
            r"same shape, got j_s \(1, 1, 2, 1\) and j_t \(2, 1, 2, 1\)",
        ),
        (
            lambda: gradients.flip_symmetry(j(1, 2), j(1, 2, 3, 4)),
            "flip_symmetry: input gradients must have the same shape",
        ),
        (
            lambda: gradients.gradient_penalty(j(1, 2)[0]),
            "gradient_penalty: j must have rank 4",
        ),
        (
            lambda: gradients.gradient_penalty(j(1, 2).astype(int)),
            "must be floating point, got int32",
        ),
        (
            lambda: gradients.gradient_penalty(j(1, 2), squared=1),
            "squared must be True .* or False .*, got 1",
        ),
    ],
)
def test_terms_of_bad_arguments_raise_user_error(call, message):
    with pytest.raises(UserError, match=message):
        call()
