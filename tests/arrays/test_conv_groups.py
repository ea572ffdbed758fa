"""Grouped, depthwise and transposed convolutions in the closed family."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from convolutions import LAYOUT, assert_close, derivatives
from jax import lax

from at_jax.conv import conv_general_dilated
from benchmarks.compiled import convolutions, flops

# Images, kernel, strides, padding, dilation of the images, of the kernel, groups.
DEPTHWISE = ((2, 6, 7, 4), (3, 3, 1, 4), (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 4)
STRIDED = ((2, 6, 7, 4), (3, 3, 1, 4), (2, 2), ((1, 1), (1, 1)), (1, 1), (1, 1), 4)
CASES = {
    "depthwise": DEPTHWISE,
    "depthwise, strided": STRIDED,
    "two features a channel": ((2, 6, 5, 3), (3, 2, 1, 6), (2, 1), ((1, 0), (0, 2)), (1, 1), (1, 2), 3),
    "groups": ((2, 6, 6, 6), (3, 3, 3, 4), (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 2),
    "groups, strided": ((2, 7, 6, 6), (3, 3, 2, 6), (2, 2), ((1, 1), (0, 1)), (1, 1), (1, 1), 3),
    "groups, 1x1": ((2, 5, 5, 4), (1, 1, 2, 4), (2, 2), ((0, 0), (0, 0)), (1, 1), (1, 1), 2),
    "depthwise, 7x7": ((2, 8, 7, 4), (7, 7, 1, 4), (1, 1), ((3, 3), (3, 3)), (1, 1), (1, 1), 4),
    "depthwise, 6x5, strided": ((3, 9, 8, 2), (6, 5, 1, 4), (2, 1), ((3, 2), (1, 4)), (1, 1), (2, 1), 2),
    "groups, 9x3, strided": ((2, 9, 8, 4), (9, 3, 2, 6), (2, 3), ((4, 4), (1, 0)), (1, 1), (1, 2), 2),
    "depthwise, 13x13": ((1, 13, 13, 2), (13, 13, 1, 2), (1, 1), ((6, 6), (6, 6)), (1, 1), (1, 1), 2),
    "transposed": ((2, 4, 5, 3), (3, 3, 3, 4), (1, 1), ((1, 2), (1, 2)), (2, 2), (1, 1), 1),
    "transposed, 4x4": ((2, 3, 4, 3), (4, 4, 3, 2), (1, 1), ((2, 2), (2, 2)), (2, 2), (1, 1), 1),
    "transposed, groups": ((2, 3, 4, 4), (3, 2, 2, 6), (1, 1), ((2, 1), (1, 1)), (3, 2), (1, 2), 2),
    "transposed, strided": ((2, 4, 4, 2), (3, 3, 2, 3), (2, 1), ((1, 1), (3, 2)), (3, 2), (1, 1), 1),
}  # fmt: skip


def conv(x, w, case, function=conv_general_dilated):
    _, _, strides, padding, spread, dilation, groups = case
    return function(
        x,
        w,
        strides,
        padding,
        spread,
        dilation,
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
    )


def operands(case, dtype="float32"):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=shape), dtype) for shape in case[:2])


def marked(quick):
    """Cases by name; those that are not among the quick ones are slow tests."""
    return [
        pytest.param(case, id=name, marks=() if name in quick else pytest.mark.slow)
        for name, case in CASES.items()
    ]


QUICK = (
    "depthwise, strided", "two features a channel", "groups, strided", "transposed, groups",
    "depthwise, 6x5, strided", "groups, 9x3, strided", "depthwise, 13x13",
)  # fmt: skip


@pytest.mark.parametrize("case", marked(QUICK))
def test_conv_equals_lax_to_second_order(case):
    with jax.enable_x64(True):
        x, w = operands(case, "float64")
        results = [
            tiny.jit(derivatives(functools.partial(conv, case=case, function=function)))(x, w)
            for function in (conv_general_dilated, lax.conv_general_dilated)
        ]
        assert_close(*results, 1e-12)


@pytest.mark.parametrize("name", ["depthwise", "two features a channel", "groups"])
def test_conv_in_bfloat16_is_rounded_once(name):
    case = CASES[name]
    half = operands(case, jnp.bfloat16)
    run = lambda x, w: jax.vjp(functools.partial(conv, case=case), x, w)  # noqa: E731
    (y, pull), (exact, pull_exact) = run(*half), run(*(a.astype(jnp.float32) for a in half))
    g = jnp.cos(y)
    found = jax.tree.map(lambda a: a.astype(jnp.float32), (y, *pull(g)))
    # bfloat16 has 8 bits: a result that is rounded once is within 2**-9 of its own value.
    assert_close(found, (exact, *pull_exact(g.astype(jnp.float32))), 2**-8)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_conv_and_its_derivatives_contain_no_lax_convolution(case):
    text = str(jax.make_jaxpr(derivatives(functools.partial(conv, case=case)))(*operands(case)))
    assert "at_conv" in text and "conv_general_dilated" not in text


@pytest.mark.parametrize(
    "case",
    [CASES["groups, strided"], pytest.param(DEPTHWISE, marks=pytest.mark.slow)],
    ids=["groups", "depthwise"],
)
@pytest.mark.parametrize("axes", [(0, None), (None, 4), (1, 2)])
def test_conv_in_vmap_equals_a_loop(case, axes):
    stacks = []
    for array, axis in zip(operands(case), axes, strict=True):
        copies = [array, jnp.cos(array), 2 * array]
        stacks.append(array if axis is None else jnp.stack(copies, axis=axis))
    run = derivatives(functools.partial(conv, case=case))
    one_by_one = [
        tiny.jit(run)(
            *(s if a is None else jnp.take(s, i, axis=a) for s, a in zip(stacks, axes, strict=True))
        )
        for i in range(3)
    ]
    vmapped = tiny.jit(jax.vmap(run, in_axes=axes))(*stacks)
    assert_close(vmapped, jax.tree.map(lambda *parts: jnp.stack(parts), *one_by_one))


@pytest.mark.parametrize("alone", [0, 1], ids=["x", "g"])
def test_weight_gradient_in_vmap_over_one_operand_equals_a_loop(alone):
    case = CASES["groups, strided"]
    x, w = operands(case)
    arguments = [x, jnp.cos(conv(x, w, case))]
    pull = lambda x, g: jax.vjp(lambda w: conv(x, w, case), w)[1](g)  # noqa: E731
    stack = jnp.stack([arguments[alone], jnp.cos(arguments[alone])], axis=2)
    results = []
    for index in range(2):
        one = list(arguments)
        one[alone] = stack[:, :, index]
        results.append(pull(*one))
    arguments[alone] = stack
    axes = [2 if index == alone else None for index in range(2)]
    vmapped = jax.vmap(pull, in_axes=axes)(*arguments)
    assert_close(vmapped, jax.tree.map(lambda *parts: jnp.stack(parts), *results))


@pytest.mark.parametrize("steps", [1, 3], ids=["alone", "in scan"])
@pytest.mark.parametrize(
    ("channels", "groups", "stride", "size"),
    [
        *((16, groups, stride, 3) for groups in (16, 4) for stride in (1, 2)),
        *((16, groups, 2, 7) for groups in (16, 4)),
        (16, 1, 8, 8),
    ],
)
def test_double_backpropagation_has_no_slow_convolution(channels, groups, stride, size, steps):
    case = (None, None, (stride, stride), ((size // 2,) * 2,) * 2, (1, 1), (1, 1), groups)

    def penalty(w, x):
        gradient = jax.grad(lambda x: jnp.sum(jnp.sin(conv(x, w, case))))(x)
        return jnp.sum(gradient**2)

    def run(w, x):
        update = lambda w, _: (w - jax.grad(penalty)(w, x), None)  # noqa: E731
        return lax.scan(update, w, length=steps)[0]

    shapes = (size, size, channels // groups, channels), (4, 16, 16, channels)
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    assert not convolutions(jax.jit(run).lower(*arguments).compile(tiny.QUICK))[1]


@pytest.mark.skipif(
    jax.__version_info__ < (0, 11), reason="XLA of jax 0.10 removes the barriers before it fuses"
)
def test_taps_of_a_large_depthwise_kernel_are_computed_once():
    case = ((4, 16, 16, 8), (7, 7, 1, 8), (1, 1), ((3, 3), (3, 3)), (1, 1), (1, 1), 8)
    loss = lambda x, w: jnp.sum(jnp.sin(conv(x, w, case)))  # noqa: E731
    penalty = lambda x, w: jnp.sum(jax.grad(loss)(x, w) ** 2)  # noqa: E731
    compiled = tiny.jit(jax.grad(penalty)).lower(*operands(case)).compile()
    # Four convolutions: two of the forward pass and its gradient, two of their derivatives. Each has a
    # product and a sum for every tap of every pixel.
    assert flops(compiled) < 1.2 * 4 * 2 * 49 * 4 * 16 * 16 * 8


@pytest.mark.parametrize(
    "case",
    [
        ((2, 64, 64, 3), (16, 16, 3, 8), (16, 16), ((0, 0), (0, 0)), (1, 1), (1, 1), 1),
        ((2, 16, 16, 8), (7, 7, 1, 8), (1, 1), ((3, 3), (3, 3)), (1, 1), (1, 1), 8),
    ],
    ids=["patches", "depthwise"],
)
def test_weight_gradient_of_a_large_kernel_is_a_short_program(case):
    # Compile time grows with the number of operations: 256 taps one by one took 17 s.
    loss = lambda w, x: jnp.sum(jnp.sin(conv(x, w, case)))  # noqa: E731
    x, w = operands(case)
    forward, both = (jax.jit(f).lower(w, x).as_text() for f in (loss, jax.grad(loss)))
    assert both.count("stablehlo.") - forward.count("stablehlo.") < 150


def image_sized_kernels(text):
    """Convolutions of StableHLO for which input dilation meets a kernel of more than 8 pixels."""
    found = []
    for line in text.splitlines():
        if "stablehlo.convolution" not in line or "lhs_dilate = [1, 1]" in line:
            continue
        kernel = re.search(r"tensor<[^>]*>, tensor<([\dx]+)xf32>\) ->", line)
        order = re.search(r"x\[([^\]]*)\]->", line)
        if "lhs_dilate" in line:
            sizes, names = kernel[1].split("x"), order[1].split(", ")
            if max(int(s) for s, name in zip(sizes, names, strict=True) if name in "01") > 8:
                found.append(line)
    return found


@pytest.mark.parametrize(("groups", "stride"), [(16, 2), (4, 2), (1, 2)])
def test_double_backpropagation_for_gpu_has_no_image_sized_kernel(groups, stride):
    case = (None, None, (stride, stride), ((1, 1), (1, 1)), (1, 1), (1, 1), groups)

    def lowered(function):
        def penalty(w, x):
            loss = lambda x: jnp.sum(jnp.sin(conv(x, w, case, function)))  # noqa: E731
            return jnp.sum(jax.grad(loss)(x) ** 2)

        shapes = (3, 3, 16 // groups, 16), (4, 16, 16, 16)
        arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        traced = jax.jit(jax.grad(penalty, argnums=(0, 1))).trace(*arguments)
        return traced.lower(lowering_platforms=("cuda",)).as_text()

    assert not image_sized_kernels(lowered(conv_general_dilated))
    assert image_sized_kernels(lowered(lax.conv_general_dilated))  # the check finds them


def test_derivatives_of_an_empty_batch_are_zero():
    (_, *image), *rest = CASES["groups"]
    case = ((0, *image), *rest)
    x, w = operands(case)
    of_x, of_w = jax.grad(lambda x, w: jnp.sum(conv(x, w, case) ** 2), argnums=(0, 1))(x, w)
    assert of_x.shape == x.shape
    np.testing.assert_array_equal(of_w, jnp.zeros_like(w))


def test_a_depthwise_layer_of_flax_runs_in_the_family():
    layer = nn.Conv(
        6, (3, 3), strides=2, feature_group_count=6, use_bias=False,
        conv_general_dilated=conv_general_dilated,
    )  # fmt: skip
    images = jnp.ones((2, 8, 8, 6))
    variables = layer.init(jax.random.key(0), images)
    assert "at_conv[" in str(jax.make_jaxpr(layer.apply)(variables, images))
    plain = layer.clone(conv_general_dilated=None)
    assert_close(layer.apply(variables, images), plain.apply(variables, images))
