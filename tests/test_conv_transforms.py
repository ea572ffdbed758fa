"""The closed convolution under scan, pmap, shard_map, checkpoint and vmap, differentiated inside."""

import functools

import jax
import jax.numpy as jnp
import pytest
import tiny
from convolutions import assert_close, derivatives, of_theirs, operands, ours, theirs
from jax import lax


def test_scan_pmap_and_checkpoint():
    x, w = operands()
    gradient = jax.grad(lambda x, w: jnp.sum(jnp.sin(ours(x, w))), argnums=(0, 1))
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
    def rematerialised(x, w):
        return jnp.sum(jnp.sin(ours(x, w)))

    inner = jax.grad(rematerialised, argnums=(0, 1))
    outer = jax.grad(lambda x, w: sum(jnp.sum(g**2) for g in inner(x, w)), argnums=(0, 1))
    assert_close(tiny.jit(outer)(x, w), expected)


def test_shard_map():
    """Images split over devices, the kernel on all: its gradient is the sum over the devices."""
    x, w = operands(batch=4)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = jax.sharding.PartitionSpec("batch"), jax.sharding.PartitionSpec()

    def squares(conv, x, w):
        gradient = jax.grad(lambda x: jnp.sum(jnp.sin(conv(x, w))))(x)
        return jnp.sum(gradient**2)

    def mapped(x, w):
        part = lambda x, w: lax.psum(squares(ours, x, w), "batch")  # noqa: E731
        return jax.shard_map(part, mesh=mesh, in_specs=(split, whole), out_specs=whole)(x, w)

    alone = functools.partial(squares, theirs)
    results = [tiny.jit(jax.value_and_grad(f, argnums=(0, 1)))(x, w) for f in (mapped, alone)]
    assert_close(*map(jax.device_get, results))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (2, None), (None, 4), (0, 0), (1, 3)])
def test_vmap(axes):
    """Over images, over kernels, over both, at any axis; with second derivatives inside."""
    x, w = operands()
    stacks = []
    for array, axis in zip((x, w), axes, strict=True):
        copies = [array, jnp.cos(array), 2 * array]
        stacks.append(array if axis is None else jnp.stack(copies, axis=axis))
    # Not through lax's own batching, which turns two vmapped operands into groups.
    one_by_one = [
        of_theirs(
            *(s if a is None else jnp.take(s, i, axis=a) for s, a in zip(stacks, axes, strict=True))
        )
        for i in range(3)
    ]
    vmapped = tiny.jit(jax.vmap(derivatives(ours), in_axes=axes))(*stacks)
    assert_close(vmapped, jax.tree.map(lambda *parts: jnp.stack(parts), *one_by_one))


@pytest.mark.parametrize("alone", [0, 1, 2], ids=["x", "w", "g"])
def test_vmap_over_one_of_three(alone):
    """With a fixed cotangent g each gradient is vmapped in one operand only."""
    x, w = operands()
    arguments = [x, w, jnp.cos(ours(x, w))]
    varied = arguments[alone]
    stack = jnp.stack([varied, jnp.cos(varied), 2 * varied], axis=1)
    in_axes = [1 if index == alone else None for index in range(3)]

    def pullback(conv, x, w, g):
        y, pull = jax.vjp(conv, x, w)
        return y, pull(g)

    vmapped = jax.vmap(functools.partial(pullback, ours), in_axes=in_axes)
    results = []
    for index in range(3):
        arguments[alone] = stack[:, index]
        results.append(pullback(theirs, *arguments))
    arguments[alone] = stack
    wanted = jax.tree.map(lambda *parts: jnp.stack(parts), *results)
    assert_close(tiny.jit(vmapped)(*arguments), wanted)
