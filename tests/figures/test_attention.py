"""Maps and gradients as arrays."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from own_modules import Counting, Tapped, Tokens, Unordered, Untapped

from at_jax import figures, intermediates, losses, maps
from at_jax.errors import UserError
from at_jax.figures import attention
from at_jax.training.components import compatibility, tracing

IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)


@functools.cache
def initialized(module):
    return module, tiny.jit(module.init)(jax.random.key(0), IMAGES)


@pytest.fixture(scope="module")
def network():
    return initialized(Tapped(classes=3))


def test_attention_maps_of_both_kinds_are_those_of_the_losses(network):
    module, variables = network
    _, mutated = module.apply(variables, IMAGES, mutable=["intermediates"])
    (a,) = intermediates.collect(mutated).values()
    for kind, function in (("sum", maps.sum_map), ("max", maps.max_map)):
        found = figures.attention_maps(module, variables, IMAGES, kind=kind, p=4)
        assert list(found) == ["only"]
        assert isinstance(found["only"], np.ndarray)
        np.testing.assert_allclose(found["only"], function(a, p=4), rtol=1e-5)


def test_attention_maps_are_in_the_order_of_the_network():
    module, variables = initialized(Unordered())
    assert list(figures.attention_maps(module, variables, IMAGES)) == ["zebra", "ant"]
    shapes = tracing.shapes(module, (8, 8, 1), "student")
    assert list(shapes.taps) == ["zebra", "ant"]
    # The trainer pairs the points of two networks in this order.
    pairs = compatibility.pair_points((), shapes.taps, {"group1": None, "group2": None})
    assert pairs == (("zebra", "group1"), ("ant", "group2"))


def test_attention_maps_of_a_submodule_path_are_those_of_its_output():
    module, variables = initialized(Untapped())
    found = figures.attention_maps(module, variables, IMAGES, paths=("layer",))
    _, taps, _ = intermediates.forward(module, variables, IMAGES, paths=("layer",))
    assert list(found) == ["layer"]
    np.testing.assert_allclose(found["layer"], maps.sum_map(taps["layer"]), rtol=1e-5)


def test_gradient_maps_are_the_sum_of_the_absolute_input_gradient(network):
    module, variables = network
    labels = jnp.array([2, 0])

    def loss(x):
        return jnp.sum(losses.cross_entropy(module.apply(variables, x), labels))

    logits, found = figures.gradient_maps(module, variables, IMAGES, labels)
    np.testing.assert_allclose(logits, module.apply(variables, IMAGES), rtol=1e-5)
    expected = np.abs(jax.grad(loss)(jnp.asarray(IMAGES))).sum(axis=-1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)


def test_gradient_maps_without_a_label_use_the_predicted_class(network):
    module, variables = network
    logits, found = figures.gradient_maps(module, variables, IMAGES)
    predicted = logits.argmax(axis=-1)
    given = figures.gradient_maps(module, variables, IMAGES, predicted)[1]
    np.testing.assert_array_equal(given, found)
    mixed = figures.gradient_maps(module, variables, IMAGES, [-1, (predicted[1] + 1) % 3])[1]
    np.testing.assert_array_equal(mixed[0], found[0])
    assert not np.allclose(mixed[1], found[1])


def test_other_collections_are_passed_to_the_network():
    module, variables = initialized(Counting())
    found = figures.attention_maps(module, variables, IMAGES)["only"]
    scaled = {**variables, "constants": {"scale": jnp.full((), 3.0)}}
    np.testing.assert_allclose(figures.attention_maps(module, scaled, IMAGES)["only"], 9 * found,
                               rtol=1e-5)  # fmt: skip
    assert figures.gradient_maps(module, scaled, IMAGES)[1].shape == (2, 8, 8)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"kind": "channel"}, "kind must be sum or max, got 'channel'"),
        ({"p": 0.5}, "p must be a number from 1 to 16, got 0.5"),
        ({"p": 17}, "p must be a number from 1 to 16, got 17"),
        ({"p": True}, "p must be a number from 1 to 16, got True"),
    ],
)
def test_attention_maps_of_an_invalid_kind_raise(network, asked, message):
    with pytest.raises(UserError, match=message):
        figures.attention_maps(*network, IMAGES, **asked)


@pytest.mark.parametrize("labels", [[1.5], [-2], [10_000]])
def test_gradient_maps_of_labels_that_are_no_classes_raise(network, labels):
    with pytest.raises(UserError, match="labels must be classes from 0 to"):
        attention.gradient_maps(*network, IMAGES, labels * len(IMAGES))


def test_maps_of_a_module_that_cannot_be_hashed_name_the_fix():
    class Listed(nn.Module):
        sizes: Any = None

        def __call__(self, images, train=False):
            return images.mean(axis=(1, 2))

    for call in (figures.attention_maps, attention.gradient_maps):
        with pytest.raises(UserError, match="Listed has a field that cannot be hashed"):
            call(Listed(np.ones(3)), {}, IMAGES)


@pytest.mark.parametrize("module", [Untapped(), Tokens()])
def test_attention_maps_without_a_feature_map_raise(module):
    with pytest.raises(UserError, match=f"{type(module).__name__} has no transfer point to draw"):
        figures.attention_maps(*initialized(module), IMAGES)


def test_rms_normalize_makes_uniform_maps_one_in_every_size():
    for side in (2, 7):
        uniform = attention.rms_normalize(np.full((1, side, side), 0.3, np.float32))
        np.testing.assert_allclose(uniform, 1, rtol=1e-6)
    # The root mean square of 0, 0, 0, 4 is 2.
    spike = attention.rms_normalize(np.array([[[0.0, 0.0], [0.0, 4.0]]], np.float32))
    np.testing.assert_allclose(spike.ravel(), [0, 0, 0, 2], rtol=1e-6)
