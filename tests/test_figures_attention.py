"""Maps and gradients as arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_modules import Tapped, Untapped

from at_jax import figures, intermediates, losses, maps

IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    module = Tapped(classes=3)
    return module, jax.jit(module.init)(jax.random.key(0), IMAGES)


def test_maps_are_those_of_the_losses(network):
    module, variables = network
    _, seen = module.apply(variables, IMAGES, mutable=["intermediates"])
    (a,) = intermediates.collect(seen).values()
    for kind, function in (("sum", maps.sum_map), ("max", maps.max_map)):
        found = figures.attention_maps(module, variables, IMAGES, kind=kind, p=4)
        assert list(found) == ["only"]
        assert isinstance(found["only"], np.ndarray)
        np.testing.assert_allclose(found["only"], function(a, p=4), rtol=1e-5)


def test_gradient_maps_are_the_sum_of_the_absolute_input_gradient(network):
    module, variables = network
    labels = jnp.array([2, 0])

    def loss(x):
        return jnp.sum(losses.cross_entropy(module.apply(variables, x), labels))

    logits, found = figures.gradient_maps(module, variables, IMAGES, labels)
    np.testing.assert_allclose(logits, module.apply(variables, IMAGES), rtol=1e-5)
    expected = np.abs(jax.grad(loss)(jnp.asarray(IMAGES))).sum(axis=-1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)


def test_without_a_label_the_named_class_stands_for_it(network):
    module, variables = network
    logits, found = figures.gradient_maps(module, variables, IMAGES)
    named = logits.argmax(axis=-1)
    np.testing.assert_array_equal(figures.gradient_maps(module, variables, IMAGES, named)[1], found)
    mixed = figures.gradient_maps(module, variables, IMAGES, [-1, (named[1] + 1) % 3])[1]
    np.testing.assert_array_equal(mixed[0], found[0])
    assert not np.allclose(mixed[1], found[1])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"kind": "channel"}, "kind must be sum or max, got 'channel'"),
        ({"p": 0.5}, "p must be a number of at least 1, got 0.5"),
    ],
)
def test_maps_that_cannot_be_drawn(network, asked, message):
    with pytest.raises(ValueError, match=message):
        figures.attention_maps(*network, IMAGES, **asked)


def test_a_network_without_taps():
    module = Untapped()
    variables = jax.jit(module.init)(jax.random.key(0), IMAGES)
    with pytest.raises(ValueError, match="Untapped taps no transfer point: tap the activations"):
        figures.attention_maps(module, variables, IMAGES)
