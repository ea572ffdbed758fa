"""Networks by name: what is built, and errors before compilation."""

import chex
import jax
import jax.numpy as jnp
import pytest
import tiny
from jax import export

from at_jax import models
from at_jax.errors import UserError
from at_jax.models import (
    NIN,
    VGG,
    Adapter,
    CifarResNet,
    EfficientNetLite,
    MobileNetV2,
    ResNet,
    WideResNet,
)


def test_build_returns_the_named_network():
    assert models.build("wrn_40_2", 100) == WideResNet(40, 2.0, num_classes=100)
    assert models.build("nin_wide_bn") == NIN("wide", batch_norm=True)
    assert models.build("resnet_18", 1000) == ResNet(18)
    assert models.build("mobilenet_v2_0.5", 100) == MobileNetV2(0.5, num_classes=100)
    assert models.build("cifar_resnet_110", 100) == CifarResNet(110)
    assert models.build("cifar_resnet_32x4", 10) == CifarResNet(32, 4, num_classes=10)
    assert models.build("vgg_13", 100) == VGG(13)
    assert models.build("efficientnet_lite0", 1000) == EfficientNetLite()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("wrn_16", "wrn_16_2"),
        ("nin_thick", "nin_thin"),
        ("WRN_16_1", "wrn_16_1"),
        ("resnet_18_2", "resnet_18"),
        ("wrn16_2", "wrn_16_2"),
        ("mobilenet_v2", "mobilenet_v2_0.5"),
        # Names in RepDistiller.
        ("resnet20", "cifar_resnet_20"),
        ("resnet8x4", "cifar_resnet_8x4"),
        ("MobileNetV2", "mobilenet_v2_0.5"),
        ("resnet18", "resnet_18"),
        ("cifar_resnet_8_4", "cifar_resnet_8x4"),
        ("vgg13", "vgg_13"),
        ("efficientnet_lite1", "efficientnet_lite0"),
    ],
)
def test_build_of_an_unknown_name_suggests_the_nearest(name, nearest):
    message = f"unknown network '{name}': choose one of wrn_DEPTH.*; did you mean '{nearest}'"
    with pytest.raises(UserError, match=message):
        models.build(name)


def test_statistics_may_be_averaged_over_several_axes():
    assert models.build("wrn_10_1", bn_axis_name=("data", "model")).bn_axis_name == (
        "data",
        "model",
    )


@pytest.mark.parametrize("name", ["", "xyz"])
def test_build_of_a_name_like_no_other_suggests_none(name):
    with pytest.raises(UserError, match=f"unknown network '{name}': .*, efficientnet_lite0$"):
        models.build(name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.build("wrn_15_1"), r"must be 6n\+4 \(10, 16, .*got 15"),
        (lambda: models.build("wrn_4_1"), r"must be 6n\+4 \(10, 16, .*got 4"),
        (lambda: models.build("wrn_10_0"), "at least one channel of 16, got 0"),
        (lambda: models.build("mobilenet_v2_0.05"), "at least one channel of 16, got 0.05"),
        (
            lambda: models.build("resnet_20"),
            "one of 18, 34, 50, 101, got 20: .* cifar_resnet_20 is",
        ),
        (lambda: models.build("cifar_resnet_18"), r"must be 6n\+2 \(8, 14, 20, .*got 18"),
        (lambda: models.build("cifar_resnet_2"), r"must be 6n\+2 \(8, 14, 20, .*got 2"),
        (lambda: models.build("cifar_resnet_8x2"), "must be 1 or 4, got 2"),
        (lambda: models.build("vgg_16"), "must be one of 8, 13, got 16"),
        (lambda: models.build(16), "the name of a network must be a string, got 16"),
        (lambda: models.build("vgg_8", 0), "VGG: num_classes must be .* at least 1, got 0"),
        (lambda: models.build("vgg_8", "10"), "num_classes must be a whole number .*, got '10'"),
        (lambda: models.build("wrn_16_1", True), "num_classes must be a whole number .*, got True"),
        (lambda: WideResNet(16.0, 1), "depth must be a whole number of at least 1, got 16.0"),
        (lambda: WideResNet("16", 1), "depth must be a whole number of at least 1, got '16'"),
        (lambda: WideResNet(16, "1"), "width of a wide ResNet must leave .*, got 1"),
        (lambda: NIN(["thin"]), r"must be one of wide, thin, got \['thin'\]"),
        (lambda: models.EfficientNetLite(0), "EfficientNetLite: num_classes must be"),
        (lambda: models.build("wrn_16_1", dtype=jnp.int32), "dtype must be a floating-point type"),
        (
            lambda: models.build("wrn_16_1", dtype="half_float"),
            "of at least 16 bits, got 'half_float'",
        ),
        (lambda: models.build("wrn_16_1", dtype=None), "at least 16 bits, got None"),
        (lambda: models.build("wrn_16_1", dtype=jnp.float8_e4m3fn), "of at least 16 bits"),
        (lambda: models.build("wrn_16_1", bn_axis_name=3), "a mapped axis or None, got 3"),
        (lambda: models.build("wrn_16_1", bn_axis_name=0), "a mapped axis or None, got 0"),
        (lambda: models.build("wrn_16_1", bn_axis_name=""), "a mapped axis or None, got ''"),
        (lambda: models.build("wrn_16_1", bn_axis_name=("a", 1)), r"or None, got \('a', 1\)"),
        (lambda: NIN("thin", batch_norm="no"), "batch_norm must be True or False, got 'no'"),
        (lambda: Adapter({"a": 0}), "pairs of a transfer point and a number of channels"),
        (lambda: Adapter((("a", "b", 1),)), "pairs of a transfer point and a number of channels"),
        (lambda: WideResNet(10, float("inf")), "at least one channel of 16, got inf"),
        (lambda: NIN("thick"), "must be one of wide, thin, got 'thick'"),
    ],
)
def test_networks_of_unknown_size_raise_user_error(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_network_is_exported_for_images_of_any_size():
    module = models.build("wrn_10_0.25")
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    sizes = export.symbolic_shape("b, h, w, 3", constraints=("h >= 64", "w >= 64"))
    images = jax.ShapeDtypeStruct(sizes, jnp.float32)
    exported = export.export(jax.jit(module.apply))(shapes, images)
    assert str(exported.out_avals[0].shape) == "(b, 10)"


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("wrn_10_1", 4),
        ("nin_thin", 4),
        ("nin_wide_bn", 4),
        ("resnet_18", 32),
        ("mobilenet_v2_0.5", 16),
        ("efficientnet_lite0", 32),
        ("cifar_resnet_8x4", 4),
        ("vgg_8", 8),
    ],
)
def test_networks_of_bad_images_raise_user_error(name, least):
    module = models.build(name)
    images = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)

    def apply(shape, dtype=jnp.float32):
        return jax.eval_shape(module.apply, shapes, jax.ShapeDtypeStruct(shape, dtype))

    assert apply((1, least, least, 3)).shape == (1, 10)
    with pytest.raises(UserError, match=f"at least {least}x{least} pixels .*got {least - 1}x40"):
        apply((1, least - 1, 40, 3))
    with pytest.raises(UserError, match="images must be floating point, got uint8"):
        apply((1, 32, 32, 3), jnp.uint8)
    with pytest.raises(UserError, match=r"images must have rank 4, got shape \(32, 32, 3\)"):
        apply((32, 32, 3))


def test_equal_networks_are_one_static_argument():
    @chex.assert_max_traces(n=1)
    def size(images, module):
        return jnp.sum(images) * module.num_classes

    jitted = tiny.jit(size, static_argnames="module")
    chex.clear_trace_counter()
    for name in ("wrn_10_1", "wrn_10_1"):
        module = models.build(name, dtype=jnp.bfloat16, bn_axis_name="batch")
        assert hash(module) == hash(module.clone())
        jitted(jnp.ones(3), module=module)
    with pytest.raises(AssertionError, match="traced > 1 times"):
        jitted(jnp.ones(3), module=models.build("wrn_10_2"))
    assert hash(Adapter((("group1", 32),))) == hash(Adapter((("group1", 32),)))
