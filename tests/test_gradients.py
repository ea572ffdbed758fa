"""Input gradients and their terms: by hand, at zero, independent of batch and devices, second order."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from absl.testing import parameterized
from jax.test_util import check_grads

from at_jax import gradients, losses
from at_jax.conv import conv_general_dilated


def j(*values):
    """One example of 1x2 pixels, one channel."""
    return jnp.asarray(values, jnp.float32).reshape(-1, 1, 2, 1)


class TermsByHand(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # (3, 4) - (0, 0): |.| = 5, half of it 2.5; half of 25 is 12.5.
        (gradients.gradient_transfer, (j(3, 4), j(0, 0)), 2.5, 12.5),
        # The mirror image of (4, 0) is (0, 4): (3, 4) - (0, 4) = (3, 0).
        (gradients.flip_symmetry, (j(3, 4), j(4, 0)), 1.5, 4.5),
        (gradients.gradient_penalty, (j(6, 8),), 5.0, 50.0),
    )
    def test_value(self, term, arguments, plain, squared):
        plain_term = self.variant(functools.partial(term))
        squared_term = self.variant(functools.partial(term, squared=True))
        np.testing.assert_allclose(plain_term(*arguments), [plain], rtol=1e-6)
        np.testing.assert_allclose(squared_term(*arguments), [squared], rtol=1e-6)


@pytest.mark.parametrize("squared", [False, True])
def test_zero_gives_zero_with_zero_gradient(squared):
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


def test_half_precision_is_promoted_and_large_gradients_do_not_overflow():
    value = gradients.gradient_penalty(j(30_000, 40_000).astype(jnp.float16))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, [25_000], rtol=1e-3)
    np.testing.assert_allclose(gradients.gradient_penalty(j(3e30, 4e30)), [2.5e30], rtol=1e-6)


def test_each_row_is_its_own_example_s_gradient():
    net = tiny.TinyNet(batch_norm=False)
    images = tiny.prepare(None, jnp.asarray(tiny.batch(4)["image"]), None)
    labels = jnp.asarray(tiny.batch(4)["label"])
    variables = tiny.jit(net.init)(jax.random.key(0), images)

    def loss(labels, x):
        return losses.cross_entropy(net.apply(variables, x, train=True), labels)

    values, whole = gradients.value_and_input_gradient(functools.partial(loss, labels), images)
    chex.assert_shape(values, (4,))
    for i in range(4):
        one = slice(i, i + 1)
        _, alone = gradients.value_and_input_gradient(
            functools.partial(loss, labels[one]), images[one]
        )
        np.testing.assert_allclose(whole[one], alone, rtol=1e-5, atol=1e-8)


def test_what_comes_beside_the_loss_is_returned():
    (values, aux), slope = gradients.value_and_input_gradient(
        lambda x: (jnp.sum(x**2, axis=(1, 2, 3)), {"twice": 2 * x}), j(1, 2), has_aux=True
    )
    np.testing.assert_allclose(values, [5.0])
    np.testing.assert_allclose(aux["twice"], j(2, 4))
    np.testing.assert_allclose(slope, j(2, 4))


def test_training_on_an_input_gradient_is_the_numerical_derivative():
    """A gradient of a gradient, through convolution, batch statistics and norm; smooth, so that no
    difference quotient crosses a jump of J (design 4.17)."""
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


def test_one_device_and_four_take_the_same_gradient():
    """With synchronised statistics, at a large weight; the inner mean would be off by 40 % (design 4.2)."""
    net = tiny.TinyNet(bn_axis_name="batch")
    images = tiny.prepare(None, jnp.asarray(tiny.batch(8)["image"]), None)
    labels = jnp.asarray(tiny.batch(8)["label"])
    variables = tiny.jit(tiny.TinyNet().init)(jax.random.key(0), images)

    def penalised(variables, images, labels):
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
            penalised, axis_name="batch", in_axes=(None, 0, 0), out_axes=None,
            devices=jax.devices()[:count],
        )  # fmt: skip
        parts = (x.reshape(count, -1, *x.shape[1:]) for x in (images, labels))
        return mapped(variables, *parts)

    for one, four in zip(jax.tree.leaves(on(1)), jax.tree.leaves(on(4)), strict=True):
        np.testing.assert_allclose(four, one, atol=1e-5 * np.max(np.abs(one)), rtol=0)


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="need floating-point images, got uint8: normalise"):
        gradients.value_and_input_gradient(lambda x: x, jnp.zeros((1, 2, 2, 1), jnp.uint8))
    with pytest.raises(ValueError, match=r"one number an example, shape \(1,\), got \(\)"):
        gradients.value_and_input_gradient(jnp.mean, j(1, 2))
    with pytest.raises(ValueError, match="student and teacher must have one shape"):
        gradients.gradient_transfer(j(1, 2), j(1, 2, 3, 4))
    with pytest.raises(ValueError, match="an image and its mirror image must have one shape"):
        gradients.flip_symmetry(j(1, 2), j(1, 2, 3, 4))
    with pytest.raises(ValueError, match="must be floating point, got int32"):
        gradients.gradient_penalty(jnp.zeros((1, 1, 2, 1), jnp.int32))
