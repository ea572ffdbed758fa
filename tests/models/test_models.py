"""Networks: parameters counted by hand, taps, statistics, precision, adapter."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from at_jax import intermediates, models
from at_jax.models import Adapter

# One network per family, with an image size at which it runs fast.
FAMILIES = [
    *(("wrn_10_1", 8), ("nin_thin_bn", 8), ("resnet_18", 32), ("mobilenet_v2_0.1", 16)),
    *(("cifar_resnet_8", 8), ("vgg_8", 8)),
]
# Channels before and after the convolutions of VGG-8, and those that VGG-13 has in addition.
VGG_8 = ((3, 64), (64, 128), (128, 256), (256, 512), (512, 512))
VGG_13 = ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512))
# Of each family: the first convolution, its stride, and the path of the norm after it.
FIRST = {
    "wrn": ("conv0", 1, ("group1_block0", "bn0")),
    "nin": ("conv1_0", 1, ("bn1_0",)),
    "resnet": ("conv1", 2, ("bn1",)),
    "mobilenet": ("conv0", 2, ("bn0",)),
    "cifar": ("conv1", 1, ("bn1",)),
    "vgg": ("conv1_0", 1, ("bn1_0",)),
}


def abstract(module, size=32, channels=3):
    """Shapes of the variables, without computing an initialization."""
    return jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, size, size, channels)))


def count(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def wide_resnet_parameters(depth, width, classes=10):
    """Count parameters layer by layer, from table 1 of the paper."""
    total = 3 * 3 * 3 * 16  # RGB to 16
    channels = 16
    for base in (16, 32, 64):
        features = int(base * width)
        for _ in range((depth - 4) // 6):
            total += 2 * channels + 9 * channels * features  # norm (scale, bias), 3x3
            total += 2 * features + 9 * features * features  # norm, 3x3
            if channels != features:
                total += channels * features  # 1x1 shortcut
            channels = features
    return total + 2 * channels + channels * classes + classes  # norm, linear with bias


def test_wide_resnet_has_the_paper_s_parameters():
    assert wide_resnet_parameters(16, 1) == 175_066
    for depth, width in ((10, 1), (16, 1), (16, 2), (40, 1), (40, 2)):
        module = models.build(f"wrn_{depth}_{width}")
        assert count(abstract(module)) == wide_resnet_parameters(depth, width)
    hundred = abstract(models.build("wrn_16_1", num_classes=100))
    assert count(hundred) == wide_resnet_parameters(16, 1, 100)
    assert count(abstract(models.build("wrn_16_1"), channels=1)) == 175_066 - 2 * 9 * 16


def test_wide_resnet_of_fractional_width_truncates_channels():
    # 16, 32, 64 times 0.72 = 11.52, 23.04, 46.08 channels: the first convolution stays 16 wide.
    module = models.build("wrn_10_0.72")
    assert module.width == 0.72
    assert count(abstract(module)) == wide_resnet_parameters(10, 0.72)
    assert [tap.shape[-1] for tap in taps_of(module, 16).values()] == [11, 23, 46]


def test_nin_has_the_paper_s_parameters():
    # Wide: 5x5 of 3, 192, 160, 96 | 5x5 of 96, then 192 | 3x3 of 192, 192, 192, K, all with bias.
    layers = [(75, 192), (192, 160), (160, 96), (25 * 96, 192), (192, 192), (192, 192)]
    layers += [(9 * 192, 192), (192, 192), (192, 10)]
    assert sum(inputs * outputs + outputs for inputs, outputs in layers) == 966_986
    assert count(abstract(models.build("nin_wide"))) == 966_986
    assert count(abstract(models.build("nin_thin"))) == 246_186
    # A norm's scale and bias replace the bias: one more parameter for each hidden channel.
    hidden = 192 + 160 + 96 + 192 * 5
    assert count(abstract(models.build("nin_wide_bn"))) == 966_986 + hidden
    assert "batch_stats" not in abstract(models.build("nin_wide"))


@pytest.mark.parametrize(
    ("depth", "parameters"),
    # torchvision's documented numbers for 1,000 classes.
    [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160)],
)
def test_resnet_has_torchvision_s_parameters(depth, parameters):
    assert count(abstract(models.build(f"resnet_{depth}", num_classes=1000))) == parameters


def mobilenet_parameters(width, classes):
    """Count parameters layer by layer, from table 2 of the paper; each norm has scale and bias."""
    channels = int(32 * width)
    total = 27 * channels + 2 * channels
    for expansion, base, blocks in ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3),
                                    (6, 160, 3), (6, 320, 1)):  # fmt: skip
        for _ in range(blocks):
            hidden, features = expansion * channels, int(base * width)
            total += (
                channels * hidden + 9 * hidden + hidden * features
            )  # expand, depthwise, project
            total += 2 * (2 * hidden + features)
            channels = features
    last = int(1280 * max(width, 1))
    return total + channels * last + 2 * last + last * classes + classes


def test_mobilenet_has_the_parameters_of_repdistiller():
    assert mobilenet_parameters(0.5, 100) == 812_836
    for width, classes in ((0.5, 100), (0.5, 10), (1, 10), (1.5, 10)):
        module = models.build(f"mobilenet_v2_{width}", num_classes=classes)
        assert count(abstract(module)) == mobilenet_parameters(width, classes)


def cifar_resnet_parameters(depth, widths, classes=100):
    """Count parameters layer by layer; each norm has scale and bias."""
    channels, *stages = widths
    total = 27 * channels + 2 * channels
    for features in stages:
        for _ in range((depth - 2) // 6):
            total += 9 * channels * features + 9 * features * features + 4 * features
            if (channels, features) != (features, features):
                total += channels * features + 2 * features  # 1x1 shortcut and its norm
            channels = features
    return total + channels * classes + classes


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Published numbers of RepDistiller's networks.
        ("wrn_16_2", 703_284),
        ("wrn_40_1", 569_780),
        ("wrn_40_2", 2_255_156),
        ("cifar_resnet_20", 278_324),
        ("cifar_resnet_56", 861_620),
        ("cifar_resnet_8x4", 1_233_540),
        ("cifar_resnet_32x4", 7_433_860),
        # Counted.
        ("cifar_resnet_32", cifar_resnet_parameters(32, (16, 16, 32, 64))),
        ("cifar_resnet_110", cifar_resnet_parameters(110, (16, 16, 32, 64))),
        # 3x3 with bias, and scale and bias of the norm: 9 C F + 3 F; then 512 features.
        ("vgg_8", sum(9 * c * f + 3 * f for c, f in VGG_8) + 512 * 100 + 100),
        ("vgg_13", sum(9 * c * f + 3 * f for c, f in (*VGG_8, *VGG_13)) + 512 * 100 + 100),
    ],
)
def test_networks_of_the_cifar100_protocol_have_its_parameters(name, parameters):
    assert count(abstract(models.build(name, num_classes=100))) == parameters


def taps_of(module, size, channels=3):
    """Transfer points to shapes, for a batch of 2."""
    images = jax.ShapeDtypeStruct((2, size, size, channels), module.dtype)

    def forward(variables, images):
        return module.apply(variables, images, mutable=["intermediates"])

    logits, mutated = jax.eval_shape(forward, abstract(module, size, channels), images)
    assert logits.shape == (2, module.num_classes) and logits.dtype == jnp.float32
    return intermediates.collect(mutated)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("wrn_16_2", 32, {"group1": (32, 32), "group2": (16, 64), "group3": (8, 128)}),
        # 33 pixels: rounded up at each stride, as in PyTorch with padding 1.
        ("wrn_10_1", 33, {"group1": (33, 16), "group2": (17, 32), "group3": (9, 64)}),
        ("nin_thin", 32, {"stage1": (32, 48), "stage2": (16, 96), "stage3": (8, 96)}),
        ("nin_wide_bn", 30, {"stage1": (30, 96), "stage2": (15, 192), "stage3": (8, 192)}),
        (
            "resnet_34",
            224,
            {"stage1": (56, 64), "stage2": (28, 128), "stage3": (14, 256), "stage4": (7, 512)},
        ),
        (
            "resnet_50",
            64,
            {"stage1": (16, 256), "stage2": (8, 512), "stage3": (4, 1024), "stage4": (2, 2048)},
        ),
        (
            "mobilenet_v2_0.5",
            32,
            {"stage1": (16, 12), "stage2": (8, 16), "stage3": (4, 48), "stage4": (2, 160)},
        ),
        ("cifar_resnet_20", 32, {"stage1": (32, 16), "stage2": (16, 32), "stage3": (8, 64)}),
        ("cifar_resnet_8x4", 32, {"stage1": (32, 64), "stage2": (16, 128), "stage3": (8, 256)}),
        (
            "vgg_13",
            32,
            {
                "stage1": (32, 64),
                "stage2": (16, 128),
                "stage3": (8, 256),
                "stage4": (4, 512),
                "stage5": (4, 512),
            },
        ),
    ],
)
def test_networks_tap_the_documented_points(name, size, expected):
    taps = taps_of(models.build(name, num_classes=7), size)
    shapes = {point: (2, side, side, width) for point, (side, width) in expected.items()}
    assert {point: tap.shape for point, tap in taps.items()} == shapes
    assert list(taps) == list(shapes)
    # In half precision the taps are too (the losses promote them); logits and parameters are float32.
    half = models.build(name, num_classes=7, dtype=jnp.bfloat16)
    assert {tap.dtype for tap in taps_of(half, size).values()} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(abstract(half))} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
    ("name", "size"),
    [*FAMILIES[:2], *(pytest.param(*family, marks=pytest.mark.slow) for family in FAMILIES[2:])],
)
def test_networks_update_statistics_in_training_and_run_in_bfloat16(name, size):
    module = models.build(name, num_classes=5)
    half = models.build(name, num_classes=5, dtype=jnp.bfloat16)
    images = jax.random.normal(jax.random.key(1), (4, size, size, 3))

    # Not module.init: its compilation takes longer than the rest of this test.
    variables = tiny.filled(abstract(module, size))

    @tiny.jit
    def forward(variables, images):
        def squares(images):
            logits = half.apply(variables, images)
            return jnp.sum(logits**2), logits

        mutable = ["batch_stats"]
        logits, mutated = module.apply(variables, images, train=True, mutable=mutable)
        still, unmoved = module.apply(variables, images, train=False, mutable=mutable)
        gradient, rounded = jax.grad(squares, has_aux=True)(images)
        return logits, mutated, still, unmoved, rounded, gradient

    logits, mutated, still, unmoved, rounded, gradient = forward(variables, images)
    chex.assert_trees_all_equal(unmoved["batch_stats"], variables["batch_stats"])
    assert not np.allclose(logits, still)
    # Updated once: 0.9 of the old mean, 0, and 0.1 of the batch's. The first norm of each family:
    conv, stride, path = FIRST[name.split("_")[0]]
    old, new = variables["batch_stats"], mutated["batch_stats"]
    for part in path:
        old, new = old[part], new[part]
    kernel = variables["params"][conv]
    pad = kernel["kernel"].shape[0] // 2
    x = jax.lax.conv_general_dilated(
        images,
        kernel["kernel"],
        (stride, stride),
        ((pad, pad),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x += jnp.reshape(kernel.get("bias", jnp.zeros(x.shape[-1])), (1, 1, 1, -1))
    np.testing.assert_allclose(new["mean"], 0.1 * jnp.mean(x, (0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(new["var"], 0.9 + 0.1 * jnp.var(x, (0, 1, 2)), rtol=1e-4)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), new, old)
    assert all(jax.tree.leaves(moved))
    assert rounded.dtype == jnp.float32
    chex.assert_tree_all_finite((rounded, gradient))
    # bfloat16 has 8 bits: close to float32, and not equal.
    assert 0 < jnp.max(jnp.abs(rounded - still)) < 0.1 * jnp.max(jnp.abs(still))


@pytest.mark.parametrize(("name", "size"), [*FAMILIES, ("efficientnet_lite0", 32)])
def test_networks_with_a_named_axis_need_it_only_in_training(name, size):
    module = models.build(name, bn_axis_name="batch")
    shapes = abstract(module, size)  # initialization is outside pmap
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    logits = jax.eval_shape(module.apply, shapes, images)
    assert logits.shape == (2, 10)
    with pytest.raises(NameError, match="unbound axis name"):
        jax.eval_shape(
            lambda v, x: module.apply(v, x, train=True, mutable=["batch_stats"]), shapes, images
        )


def test_adapter_changes_the_named_points_only():
    adapter = Adapter((("deep/group1", 5),))
    taps = {"deep/group1": jnp.ones((2, 3, 3, 4), jnp.bfloat16), "group2": jnp.ones((2, 3, 3, 4))}
    variables = jax.tree.map(lambda leaf: leaf + 0.5, adapter.init(jax.random.key(0), taps))
    # A 1x1 kernel and a bias; the parameters are flat although the name has a slash.
    assert count(variables) == 4 * 5 + 5 and set(variables["params"]) == {"deep_group1"}
    adapted = adapter.apply(variables, taps)
    assert adapted["group2"] is taps["group2"]
    kernel = variables["params"]["deep_group1"]["kernel"][0, 0]
    expected = jnp.sum(kernel, 0) + variables["params"]["deep_group1"]["bias"]
    np.testing.assert_allclose(adapted["deep/group1"][0, 0, 0], expected, rtol=1e-5)
    assert adapted["deep/group1"].dtype == jnp.float32
