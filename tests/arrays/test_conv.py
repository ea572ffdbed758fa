"""The closed convolution equals lax in value, first and second derivative."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from convolutions import LAYOUT, assert_close, closed_conv, derivatives, lax_conv, operands
from flax import nnx
from jax import lax
from jax.test_util import check_grads

from at_jax import conv_lowerings
from at_jax.conv import conv_general_dilated
from at_jax.errors import UserError

# (major, minor) of jax that this file passed on: at_jax/conv.py registers its primitives through
# jax.interpreters, which jax may change between versions.
TESTED_VERSIONS = ((0, 10), (0, 12))

# Image, kernel, strides, padding, dilation: a stride of 2 divides the height and not the width.
GEOMETRIES = [
    ((6, 7), (k, k), (s, s), ((k // 2, k // 2),) * 2, (1, 1))
    for k, s in itertools.product((1, 3, 5), (1, 2))
] + [
    ((7, 8), (3, 3), (3, 3), ((0, 0), (0, 0)), (1, 1)),  # pixels at the edge that no window covers
    ((9, 8), (3, 2), (2, 1), ((0, 2), (3, 1)), (1, 1)),  # asymmetric kernel, strides and padding
    ((9, 10), (3, 3), (2, 2), ((2, 2), (2, 2)), (2, 2)),
    ((9, 9), (2, 3), (1, 2), ((1, 0), (0, 3)), (3, 2)),
    ((5, 5), (1, 1), (2, 2), ((2, 1), (0, 0)), (1, 1)),  # padding wider than the kernel
]


def test_conv_on_an_untested_version_of_jax_skips_with_advice():
    version = tuple(int(part) for part in jax.__version__.split(".")[:2])
    if version not in TESTED_VERSIONS:
        tested = ", ".join(".".join(map(str, v)) for v in TESTED_VERSIONS)
        pytest.skip(
            f"at_jax/conv.py was tested on jax {tested}, this is {jax.__version__}: if all other tests "
            "of this file pass, add it to TESTED_VERSIONS"
        )


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_conv_equals_lax_to_second_order(geometry):
    image, kernel, *window = geometry
    x, w = operands(image, kernel)
    results = [
        tiny.jit(derivatives(lambda x, w, f=f: f(x, w, *window)))(x, w)
        for f in (closed_conv, lax_conv)
    ]
    assert_close(*results)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_weight_gradient_of_any_channels_and_batch_equals_lax(geometry):
    # The lowering for CPU depends on the operand with fewer channels, and on an even or odd batch.
    image, kernel, *window = geometry
    for channels, batch in (((3, 2), 1), ((2, 2), 2), ((1, 3), 3)):
        x, w = operands(image, kernel, channels, batch)
        results = []
        for conv in (closed_conv, lax_conv):
            y, by_weight = jax.vjp(lambda w, conv=conv: conv(x, w, *window), w)  # noqa: B023
            results.append(by_weight(jnp.cos(y)))
        assert_close(*results)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_lowerings_for_gpu_equal_those_for_cpu(geometry):
    # GPU and TPU use the lowerings of lax; no test runs there.
    image, kernel, strides, padding, dilation = geometry
    x, w = operands(image, kernel)
    window = conv_lowerings.Window(image, kernel, strides, padding, dilation)
    g = jnp.cos(conv_lowerings.cpu.forward(x, w, window))
    for cpu_lowering, lax_lowering, arguments in (
        (conv_lowerings.cpu.input_grad, conv_lowerings.as_lax.input_grad, (g, w)),
        (conv_lowerings.cpu.weight_grad, conv_lowerings.as_lax.weight_grad, (x, g)),
    ):
        assert_close(cpu_lowering(*arguments, window), lax_lowering(*arguments, window))


def test_weight_gradient_of_zero_channels_is_empty():
    x, w = operands(channels=(0, 3))
    by_weight = jax.grad(lambda w: jnp.sum(closed_conv(x, w)))(w)
    assert by_weight.shape == (3, 3, 0, 3)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 2), (5, 2)])
def test_conv_has_numerical_derivatives_of_order_two(size, stride):
    pads = ((size // 2,) * 2,) * 2
    conv = jax.jit(lambda x, w: closed_conv(x, w, (stride, stride), pads))
    check_grads(conv, operands((5, 6), (size, size)), order=2, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("padding", ["SAME", "SAME_LOWER", "VALID"])
def test_conv_with_named_padding_equals_lax(padding):
    x, w = operands((8, 7))
    for stride in (1, 2):
        arguments = (x, w, (stride, stride), padding, (2, 1))
        assert_close(closed_conv(*arguments), lax_conv(*arguments))


def test_conv_outside_jit_and_in_bfloat16_equals_lax():
    x, w = operands()
    assert_close(closed_conv(x, w), lax_conv(x, w))
    half = [a.astype(jnp.bfloat16) for a in (x, w)]
    results = [tiny.jit(derivatives(f))(*half) for f in (closed_conv, lax_conv)]
    assert {leaf.dtype for leaf in jax.tree.leaves(results[0])} == {jnp.dtype(jnp.bfloat16)}
    # Eight bits of mantissa; sums of some twenty products.
    assert_close(*results, tolerance=0.05)


def test_conv_outside_the_family_is_passed_to_lax():
    x, w = operands((6, 6), channels=(4, 4))
    cases = {
        "batch groups": (x, w, {"batch_group_count": 2, "dimension_numbers": LAYOUT}),
        "NCHW": (x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1), {}),
        "another result type": (
            x.astype(jnp.bfloat16),
            w.astype(jnp.bfloat16),
            {"preferred_element_type": jnp.float32, "dimension_numbers": LAYOUT},
        ),
    }
    for name, (x, w, options) in cases.items():
        results = [
            conv(x, w, (1, 1), ((1, 1), (0, 2)), **options)
            for conv in (conv_general_dilated, lax.conv_general_dilated)
        ]
        assert results[0].dtype == results[1].dtype, name
        np.testing.assert_array_equal(*results, err_msg=name)
    x, w = jnp.ones((2, 5, 3)), jnp.ones((3, 3, 4))
    results = [
        conv(x, w, (2,), "SAME", dimension_numbers=("NHC", "HIO", "NHC"))
        for conv in (conv_general_dilated, lax.conv_general_dilated)
    ]
    np.testing.assert_array_equal(*results)
    # Shapes that are no convolution raise the error of lax.
    with pytest.raises(ValueError, match="feature_group_count"):
        closed_conv(operands()[0], operands(channels=(4, 3))[1])


def test_conv_and_its_derivatives_contain_no_lax_convolution():
    x, w = operands()
    gradient = jax.grad(lambda x, w: jnp.sum(jnp.sin(closed_conv(x, w))), argnums=(0, 1))
    second = jax.grad(lambda x, w: sum(jnp.sum(g**2) for g in gradient(x, w)), argnums=(0, 1))
    text = str(jax.make_jaxpr(second)(x, w))
    assert all(name in text for name in ("at_conv[", "at_conv_input_grad[", "at_conv_weight_grad["))
    assert "conv_general_dilated" not in text


def test_conv_in_a_flax_layer_equals_lax():
    x, _ = operands((6, 6))
    layers = [
        nn.Conv(3, (3, 3), strides=2, padding=1, conv_general_dilated=conv)
        for conv in (conv_general_dilated, None)
    ]
    variables = layers[0].init(jax.random.key(0), x)
    assert_close(*(layer.apply(variables, x) for layer in layers))
    assert "at_conv[" in str(jax.make_jaxpr(layers[0].apply)(variables, x))


def test_conv_in_a_layer_of_nnx_equals_lax():
    x, _ = operands((6, 6))
    options = {"strides": 2, "padding": ((1, 1), (1, 1))}
    layers = [
        nnx.Conv(2, 3, (3, 3), conv_general_dilated=conv, rngs=nnx.Rngs(0), **options)
        for conv in (conv_general_dilated, lax.conv_general_dilated)
    ]
    assert_close(*(layer(x) for layer in layers))
    assert "at_conv[" in str(jax.make_jaxpr(layers[0])(x))


def test_conv_with_a_sharding_of_the_result_equals_lax():
    axes = (jax.sharding.AxisType.Explicit,)
    mesh, spec = (
        jax.make_mesh((4,), ("batch",), axis_types=axes),
        jax.sharding.PartitionSpec("batch"),
    )
    x, w = operands((6, 6), batch=4)
    with jax.set_mesh(mesh):
        x = jax.device_put(x, jax.sharding.NamedSharding(mesh, spec))
        options = {"dimension_numbers": LAYOUT, "out_sharding": spec}
        results = [
            jax.jit(lambda x, w, conv=conv: conv(x, w, (1, 1), "SAME", **options))(x, w)
            for conv in (conv_general_dilated, lax.conv_general_dilated)
        ]
    assert results[0].sharding == results[1].sharding
    np.testing.assert_array_equal(*results)


def test_conv_with_precision_lowers_to_it():
    x, w = operands()
    lowered = tiny.jit(
        lambda x, w: conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=LAYOUT, precision=lax.Precision.HIGHEST
        )
    ).lower(x, w)
    assert "HIGHEST" in lowered.as_text()


def test_conv_of_images_smaller_than_the_kernel_raises_user_error():
    with pytest.raises(UserError, match="5x5 kernel needs padded images .* got 2x4 pixels padded"):
        closed_conv(*operands((2, 4), (5, 5)))
