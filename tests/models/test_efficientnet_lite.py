"""EfficientNet-Lite0: parameters counted by hand, taps, statistics, second order; PyTorch's outputs."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from parity import efficientnet
from parity.cases import FOLDER, relative

from at_jax import intermediates, models
from at_jax.models.efficientnet_lite import MBConv
from at_jax.models.pretrained import convert
from benchmarks.compiled import convolutions

CLASSES = 10


def parameters(classes):
    """Count parameters layer by layer; each norm has scale and bias."""
    channels = 32
    total = 27 * channels + 2 * channels
    for expansion, features, blocks, kernel in (
        (1, 16, 1, 3), (6, 24, 2, 3), (6, 40, 2, 5), (6, 80, 3, 3), (6, 112, 3, 5), (6, 192, 4, 5),
        (6, 320, 1, 3),
    ):  # fmt: skip
        for _ in range(blocks):
            hidden = expansion * channels
            if expansion > 1:
                total += channels * hidden + 2 * hidden
            total += kernel**2 * hidden + 2 * hidden + hidden * features + 2 * features
            channels = features
    return total + 320 * 1280 + 2 * 1280 + 1280 * classes + classes


def test_efficientnet_lite_has_the_parameters_and_taps_of_the_original():
    module = models.build("efficientnet_lite0", num_classes=1000)
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)

    def forward(key, images):
        variables = module.init(key, images)
        return variables, *module.apply(variables, images, mutable=["intermediates"])

    variables, logits, mutated = jax.eval_shape(forward, jax.random.key(0), images)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    # What PyTorch's module and its file of weights have.
    assert count == parameters(1000) == 4_652_008
    expected = {"stage1": (112, 16), "stage2": (56, 24), "stage3": (28, 40), "stage4": (14, 112),
                "stage5": (7, 320)}  # fmt: skip
    taps = intermediates.collect(mutated)
    assert [*taps.items()] == [
        (point, jax.ShapeDtypeStruct((2, side, side, channels), jnp.float32))
        for point, (side, channels) in expected.items()
    ]
    assert logits.shape == (2, 1000)


@pytest.mark.parametrize("name", ["small", pytest.param("full", marks=pytest.mark.slow)])
def test_efficientnet_lite_equals_torch(name):
    module = models.build("efficientnet_lite0", num_classes=CLASSES)
    variables = convert(efficientnet.state_dict(CLASSES), module).variables
    with np.load(FOLDER / "efficientnet.npz") as file:
        stored = dict(file)

    @tiny.jit
    def forward(variables, images):
        return module.apply(variables, images, mutable=["intermediates"])

    logits, mutated = forward(variables, efficientnet.images(name))
    assert relative(logits, stored[f"{name}/logits"]) <= 1e-5
    for stage, tap in intermediates.collect(mutated).items():
        if name == "small":
            tap = np.asarray(tap)
            assert relative(np.mean(tap**2, axis=-1), stored[f"small/{stage}/map"]) <= 2e-5, stage
            assert relative(tap[:1, :, :, :4], stored[f"small/{stage}/slice"]) <= 2e-5, stage


@pytest.fixture(scope="module")
def block():
    """A block of stride 2 with a 5x5 kernel, variables and images of an even number of pixels."""
    module = MBConv(4, expansion=6, stride=2, kernel=5)
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    return module, tiny.filled(shapes), images


def test_block_updates_its_statistics_by_one_hundredth(block):
    module, variables, images = block
    _, mutated = module.apply(variables, images, True, mutable=["batch_stats"])
    x = images @ variables["params"]["expand"]["kernel"][0, 0]
    means = mutated["batch_stats"]["bn0"]["mean"]
    old = variables["batch_stats"]["bn0"]["mean"]
    np.testing.assert_allclose(means, 0.99 * old + 0.01 * jnp.mean(x, (0, 1, 2)), atol=1e-6)


def test_depthwise_kernels_are_initialized_by_the_fan_of_one_channel():
    module = MBConv(16, expansion=6, kernel=5)
    params = module.init(jax.random.key(0), jnp.ones((1, 8, 8, 64)))["params"]
    assert np.std(params["depthwise"]["kernel"]) == pytest.approx((2 / 25) ** 0.5, rel=0.05)
    assert np.std(params["project"]["kernel"]) == pytest.approx((2 / 16) ** 0.5, rel=0.05)


def test_block_pads_as_tensorflow(block):
    # 8 pixels to 4 with a 5x5 kernel: 3 * 2 + 5 - 8 = 3 pixels of padding, 1 before and 2 after.
    module, variables, images = block
    y, mutated = module.apply(
        variables, images, capture_intermediates=lambda layer, _: layer.name == "depthwise"
    )
    hidden = np.asarray(mutated["intermediates"]["depthwise"]["__call__"][0])
    assert y.shape == (2, 4, 4, 4) and hidden.shape == (2, 4, 4, 18)
    expand, depthwise = (
        np.asarray(variables["params"][name]["kernel"]) for name in ("expand", "depthwise")
    )
    # Mean 0, variance 1, scale 1 and no bias, with TensorFlow's epsilon.
    x = np.clip(np.asarray(images) @ expand[0, 0] / np.sqrt(1 + 1e-3), 0, 6)
    padded = np.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)))
    by_hand = np.sum(padded[:, 2:7, 4:9] * depthwise[:, :, 0], axis=(1, 2))
    np.testing.assert_allclose(hidden[:, 1, 2], by_hand, rtol=1e-4, atol=1e-5)


def test_second_order_of_a_block_has_no_slow_convolution(block):
    module, variables, images = block

    def penalty(variables, images):
        j = jax.grad(lambda x: jnp.sum(module.apply(variables, x) ** 2))(images)
        return jnp.sum(j**2)

    compiled = jax.jit(jax.grad(penalty)).lower(variables, images).compile(tiny.QUICK)
    assert not convolutions(compiled)[1]
    gradient = compiled(variables, images)["params"]["depthwise"]["kernel"]
    chex.assert_tree_all_finite(gradient)
    assert jnp.linalg.norm(gradient) > 0
