"""The closed convolution equals lax in value, first and second derivative."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from convolutions import LAYOUT, assert_close, derivatives, operands, ours, theirs
from jax import lax
from jax.test_util import check_grads

from at_jax import conv_spellings
from at_jax.conv import conv_general_dilated

# (major, minor) of jax that this file was run on: at_jax/conv.py registers its primitives through
# jax.interpreters, which jax may change between versions.
TRIED_VERSIONS = ((0, 10), (0, 12))

# Image, kernel, strides, padding, dilation: a stride of 2 divides the height and not the width.
GEOMETRIES = [
    ((6, 7), (k, k), (s, s), ((k // 2, k // 2),) * 2, (1, 1))
    for k, s in itertools.product((1, 3, 5), (1, 2))
] + [
    ((7, 8), (3, 3), (3, 3), ((0, 0), (0, 0)), (1, 1)),  # pixels at the edge that no window sees
    ((9, 8), (3, 2), (2, 1), ((0, 2), (3, 1)), (1, 1)),  # asymmetric in everything
    ((9, 10), (3, 3), (2, 2), ((2, 2), (2, 2)), (2, 2)),
    ((9, 9), (2, 3), (1, 2), ((1, 0), (0, 3)), (3, 2)),
    ((5, 5), (1, 1), (2, 2), ((2, 1), (0, 0)), (1, 1)),  # padding wider than the kernel
]


def test_says_which_versions_of_jax_were_tried():
    version = tuple(int(part) for part in jax.__version__.split(".")[:2])
    if version not in TRIED_VERSIONS:
        tried = ", ".join(".".join(map(str, v)) for v in TRIED_VERSIONS)
        pytest.skip(
            f"at_jax/conv.py was tried on jax {tried}, this is {jax.__version__}: if every other test "
            "of this file passes, add it to TRIED_VERSIONS"
        )


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_equals_lax(geometry):
    image, kernel, *window = geometry
    x, w = operands(image, kernel)
    results = [
        tiny.jit(derivatives(lambda x, w, f=f: f(x, w, *window)))(x, w) for f in (ours, theirs)
    ]
    assert_close(*results)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_weight_gradient_whichever_side_takes_the_rows(geometry):
    # On CPU the operand with fewer channels does; an odd batch is not cut in halves.
    image, kernel, *window = geometry
    for channels, batch in (((3, 2), 1), ((2, 2), 2), ((1, 3), 3)):
        x, w = operands(image, kernel, channels, batch)
        results = []
        for conv in (ours, theirs):
            y, by_weight = jax.vjp(lambda w, conv=conv: conv(x, w, *window), w)  # noqa: B023
            results.append(by_weight(jnp.cos(y)))
        assert_close(*results)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_spellings_for_gpu_are_those_for_cpu(geometry):
    # GPU and TPU take lax's: no test runs there.
    image, kernel, strides, padding, dilation = geometry
    x, w = operands(image, kernel)
    window = conv_spellings.Window(image, kernel, strides, padding, dilation)
    g = jnp.cos(conv_spellings.forward(x, w, window))
    for for_cpu, of_lax, arguments in (
        (conv_spellings.input_grad, conv_spellings.lax_input_grad, (g, w)),
        (conv_spellings.weight_grad, conv_spellings.lax_weight_grad, (x, g)),
    ):
        assert_close(for_cpu(*arguments, window), of_lax(*arguments, window))


def test_no_channels_at_all():
    x, w = operands(channels=(0, 3))
    by_weight = jax.grad(lambda w: jnp.sum(ours(x, w)))(w)
    assert by_weight.shape == (3, 3, 0, 3)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 2), (5, 2)])
def test_numerical_derivatives(size, stride):
    pads = ((size // 2,) * 2,) * 2
    conv = jax.jit(lambda x, w: ours(x, w, (stride, stride), pads))
    check_grads(conv, operands((5, 6), (size, size)), order=2, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("padding", ["SAME", "SAME_LOWER", "VALID"])
def test_padding_by_name(padding):
    x, w = operands((8, 7))
    for stride in (1, 2):
        arguments = (x, w, (stride, stride), padding, (2, 1))
        assert_close(ours(*arguments), theirs(*arguments))


def test_outside_jit_and_with_other_dtypes():
    x, w = operands()
    assert_close(ours(x, w), theirs(x, w))
    half = [a.astype(jnp.bfloat16) for a in (x, w)]
    results = [tiny.jit(derivatives(f))(*half) for f in (ours, theirs)]
    assert {leaf.dtype for leaf in jax.tree.leaves(results[0])} == {jnp.dtype(jnp.bfloat16)}
    # Eight bits of mantissa; sums of some twenty products.
    assert_close(*results, tolerance=0.05)


def test_the_rest_is_handed_to_lax():
    x, w = operands((6, 6), channels=(4, 4))
    cases = {
        "groups": (x, w[:, :, :2], {"feature_group_count": 2, "dimension_numbers": LAYOUT}),
        "batch groups": (x, w, {"batch_group_count": 2, "dimension_numbers": LAYOUT}),
        "input dilation": (x, w, {"lhs_dilation": (2, 1), "dimension_numbers": LAYOUT}),
        "NCHW": (x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1), {}),
        "another type of result": (
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
    # What is no convolution at all gets lax's own message.
    with pytest.raises(ValueError, match="feature_group_count"):
        ours(operands()[0], operands(channels=(4, 3))[1])


def test_the_family_and_not_lax_is_used():
    x, w = operands()
    gradient = jax.grad(lambda x, w: jnp.sum(jnp.sin(ours(x, w))), argnums=(0, 1))
    second = jax.grad(lambda x, w: sum(jnp.sum(g**2) for g in gradient(x, w)), argnums=(0, 1))
    text = str(jax.make_jaxpr(second)(x, w))
    assert all(name in text for name in ("at_conv[", "at_conv_input_grad[", "at_conv_weight_grad["))
    assert "conv_general_dilated" not in text


def test_in_a_flax_convolution():
    x, _ = operands((6, 6))
    layers = [
        nn.Conv(3, (3, 3), strides=2, padding=1, conv_general_dilated=conv)
        for conv in (conv_general_dilated, None)
    ]
    variables = layers[0].init(jax.random.key(0), x)
    assert_close(*(layer.apply(variables, x) for layer in layers))
    assert "at_conv[" in str(jax.make_jaxpr(layers[0].apply)(variables, x))


def test_precision_is_passed_on():
    x, w = operands()
    lowered = tiny.jit(
        lambda x, w: conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=LAYOUT, precision=lax.Precision.HIGHEST
        )
    ).lower(x, w)
    assert "HIGHEST" in lowered.as_text()


def test_an_image_too_small():
    with pytest.raises(
        ValueError, match=r"5x5 kernel does not fit the image, got 2x4 pixels padded"
    ):
        ours(*operands((2, 4), (5, 5)))
