"""The closed convolution under scan, pmap, shard_map, checkpoint and vmap, differentiated inside."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from convolutions import (
    LAYOUT,
    assert_close,
    closed_conv,
    derivatives,
    lax_conv,
    lax_derivatives,
    operands,
)
from jax import lax

from at_jax.conv import conv_general_dilated, save_convolutions
from at_jax.conv_lowerings import pixels

NAMES = ("at_conv", "at_conv_input_grad", "at_conv_weight_grad", "conv_general_dilated")


def test_conv_in_scan_pmap_and_checkpoint_keeps_its_derivatives():
    x, w = operands()
    gradient = jax.grad(lambda x, w: jnp.sum(jnp.sin(closed_conv(x, w))), argnums=(0, 1))
    squares = jax.grad(lambda x, w: sum(jnp.sum(g**2) for g in gradient(x, w)), argnums=(0, 1))
    expected = tiny.jit(squares)(x, w)
    xs = jnp.stack([x, x + 1, x])
    _, scanned = tiny.jit(lambda xs: lax.scan(lambda c, x: (c, squares(x, w)), 0, xs))(xs)
    assert_close([a[2] for a in scanned], expected)

    def mapped(x, w):
        return lax.psum(squares(x, w), "devices")

    of_four = jax.pmap(mapped, "devices", in_axes=(0, None), out_axes=None)
    inputs = jnp.stack([x, x + 1, -x, 2 * x])
    wanted = [squares(image, w) for image in inputs]
    assert_close(of_four(inputs, w), jax.tree.map(lambda *parts: sum(parts), *wanted))

    @jax.checkpoint
    def rematerialized(x, w):
        return jnp.sum(jnp.sin(closed_conv(x, w)))

    inner = jax.grad(rematerialized, argnums=(0, 1))
    outer = jax.grad(lambda x, w: sum(jnp.sum(g**2) for g in inner(x, w)), argnums=(0, 1))
    assert_close(tiny.jit(outer)(x, w), expected)


@pytest.mark.parametrize("conv", [closed_conv, lax_conv], ids=["at_jax", "lax"])
def test_checkpoint_with_the_policy_computes_no_convolution_twice(conv):
    x, w = operands((8, 8))

    def loss(x, w):
        y = jnp.sin(conv(jnp.sin(x), w, (1, 1)))
        return jnp.sum(y * y)

    def convolutions(policy):
        function = jax.grad(jax.checkpoint(loss, policy=policy), argnums=(0, 1))
        found = tiny.jit(function)(x, w)
        text = str(jax.make_jaxpr(function)(x, w))
        return found, sum(text.count(f"{name}[") for name in NAMES)

    found, saved = convolutions(save_convolutions)
    expected, recomputed = convolutions(None)
    assert (saved, recomputed) == (3, 4)
    assert_close(found, expected)


@pytest.mark.parametrize("slice_bytes", [pixels.SLICE_BYTES, 1], ids=["whole", "slices"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)], ids=str)
def test_conv_in_shard_map_sums_the_kernel_gradient_over_devices(monkeypatch, strides, slice_bytes):
    """The images are split over devices, the kernel is replicated."""
    monkeypatch.setattr(pixels, "SLICE_BYTES", slice_bytes)
    x, w = operands(batch=8)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = jax.sharding.PartitionSpec("batch"), jax.sharding.PartitionSpec()

    def squares(conv, x, w):
        gradient = jax.grad(lambda x: jnp.sum(jnp.sin(conv(x, w, strides))))(x)
        return jnp.sum(gradient**2)

    def mapped(x, w):
        part = lambda x, w: lax.psum(squares(closed_conv, x, w), "batch")  # noqa: E731
        return jax.shard_map(part, mesh=mesh, in_specs=(split, whole), out_specs=whole)(x, w)

    alone = functools.partial(squares, lax_conv)
    results = [tiny.jit(jax.value_and_grad(f, argnums=(0, 1)))(x, w) for f in (mapped, alone)]
    assert_close(*map(jax.device_get, results))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (2, None), (None, 4), (0, 0), (1, 3)])
def test_conv_in_vmap_equals_a_loop(axes):
    """Over images, kernels or both, at any axis, with second derivatives."""
    x, w = operands()
    stacks = []
    for array, axis in zip((x, w), axes, strict=True):
        copies = [array, jnp.cos(array), 2 * array]
        stacks.append(array if axis is None else jnp.stack(copies, axis=axis))
    # The batching rule of lax is not the reference: it turns two vmapped operands into groups.
    one_by_one = [
        lax_derivatives(
            *(s if a is None else jnp.take(s, i, axis=a) for s, a in zip(stacks, axes, strict=True))
        )
        for i in range(3)
    ]
    vmapped = tiny.jit(jax.vmap(derivatives(closed_conv), in_axes=axes))(*stacks)
    assert_close(vmapped, jax.tree.map(lambda *parts: jnp.stack(parts), *one_by_one))


def test_strided_depthwise_conv_of_images_split_by_height_has_its_gradient():
    # XLA's partitioner aborted the process on a pad that dilates and crops at once.
    mesh = jax.make_mesh((4,), ("height",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec(None, "height")
    x, w = operands((8, 8), channels=(16, 16))
    w = w[:, :, :1]

    def total(x, w):
        y = conv_general_dilated(
            x, w, (2, 2), ((1, 1), (1, 1)), dimension_numbers=LAYOUT, feature_group_count=16
        )
        return jnp.sum(jnp.sin(y))

    gradient = tiny.jit(jax.grad(total, argnums=(0, 1)))
    split = jax.device_put(x, jax.sharding.NamedSharding(mesh, spec))
    assert_close(jax.device_get(gradient(split, w)), gradient(x, w))


@pytest.mark.parametrize(("pairs", "convolutions"), [(8, 8), (9, 1)])
def test_conv_in_vmap_over_many_pairs_is_a_loop(pairs, convolutions):
    x, w = operands()
    stacks = [jnp.stack([jnp.sin(i + a) for i in range(pairs)]) for a in (x, w)]
    vmapped = jax.vmap(derivatives(closed_conv))
    text = str(jax.make_jaxpr(jax.vmap(closed_conv))(*stacks))
    assert text.count("at_conv[") == convolutions
    found = tiny.jit(vmapped)(*stacks)
    assert_close(jax.tree.map(lambda a: a[-1], found), lax_derivatives(*(a[-1] for a in stacks)))
    # The derivatives of the loop are those of its steps.
    total = lambda x, w: jnp.sum(jnp.sin(jax.vmap(closed_conv)(x, w)))  # noqa: E731
    assert_close(tiny.jit(jax.grad(total, argnums=(0, 1)))(*stacks), found[2])


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (2, None), (1, 3)])
def test_conv_in_vmap_over_no_example_is_empty_as_in_lax(axes):
    stacks = [
        array if axis is None else jnp.stack([array], axis=axis).take(np.zeros(0, int), axis=axis)
        for array, axis in zip(operands(), axes, strict=True)
    ]
    found, expected = (
        jax.eval_shape(jax.vmap(derivatives(conv), in_axes=axes), *stacks)
        for conv in (closed_conv, lax_conv)
    )
    assert found == expected
    assert jax.vmap(closed_conv, in_axes=axes)(*stacks).shape[0] == 0


@pytest.mark.parametrize("empty", ["batch", "channels", "features"])
def test_conv_in_vmap_over_empty_arrays_equals_lax(empty):
    sizes = {"batch": 2, "channels": 4, "features": 4, empty: 0}
    x = jnp.ones((3, sizes["batch"], 6, 6, sizes["channels"]))
    w = jnp.ones((3, 3, 3, sizes["channels"], sizes["features"]))
    for axes in ((0, None), (None, 0), (0, 0)):
        arguments = [a if axis == 0 else a[0] for a, axis in zip((x, w), axes, strict=True)]
        found, expected = (
            jax.vmap(jax.grad(lambda x, w, f=f: jnp.sum(f(x, w)), argnums=(0, 1)), in_axes=axes)(
                *arguments
            )
            for f in (closed_conv, lax_conv)
        )
        assert_close(found, expected)


@pytest.mark.parametrize("alone", [0, 1, 2], ids=["x", "w", "g"])
def test_conv_gradients_in_vmap_over_one_operand_equal_a_loop(alone):
    """With a fixed cotangent g, each gradient is vmapped in one operand only."""
    x, w = operands()
    arguments = [x, w, jnp.cos(closed_conv(x, w))]
    varied = arguments[alone]
    stack = jnp.stack([varied, jnp.cos(varied), 2 * varied], axis=1)
    in_axes = [1 if index == alone else None for index in range(3)]

    def pullback(conv, x, w, g):
        y, pull = jax.vjp(conv, x, w)
        return y, pull(g)

    vmapped = jax.vmap(functools.partial(pullback, closed_conv), in_axes=in_axes)
    results = []
    for index in range(3):
        arguments[alone] = stack[:, index]
        results.append(pullback(lax_conv, *arguments))
    arguments[alone] = stack
    wanted = jax.tree.map(lambda *parts: jnp.stack(parts), *results)
    assert_close(tiny.jit(vmapped)(*arguments), wanted)


@pytest.mark.parametrize("is_gradient", [False, True], ids=["value", "gradient"])
def test_conv_in_vmap_over_examples_sharded_by_type_equals_lax(is_gradient):
    # lax has no rule for the gradients by the kernel of one example each.
    axes = (jax.sharding.AxisType.Explicit,)
    mesh, spec = (
        jax.make_mesh((4,), ("batch",), axis_types=axes),
        jax.sharding.PartitionSpec("batch"),
    )
    images, w = operands(batch=8)

    def run(conv):
        one = lambda x, w: jnp.sin(conv(x[None], w)[0])  # noqa: E731
        function = jax.grad(lambda x, w: jnp.sum(one(x, w))) if is_gradient else one
        return tiny.jit(jax.vmap(function, in_axes=(0, None)))

    expected = run(lax_conv)(images, w)
    with jax.set_mesh(mesh):
        split = jax.device_put(images, jax.sharding.NamedSharding(mesh, spec))
        found = run(closed_conv)(split, w)
    assert found.sharding.spec[0] == "batch"
    assert_close(jax.device_get(found), expected)
