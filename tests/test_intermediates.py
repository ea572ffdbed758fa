"""Taps: silent unless asked for, once a pass, in the order of the network."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from at_jax import intermediates

IMAGES = jnp.ones((1, 2, 2, 3))


class Block(nn.Module):
    name_of_tap: str = "inner"

    @nn.compact
    def __call__(self, x):
        intermediates.tap(self, self.name_of_tap, 2 * x)
        return 2 * x


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        # Not in alphabetical order.
        intermediates.tap(self, "zebra", x)
        x = Block(name="block")(x)
        intermediates.tap(self, "ant", x)
        return x


def test_collect():
    result, mutated = Net().apply({}, IMAGES, mutable=["intermediates"])
    taps = intermediates.collect(mutated)
    assert list(taps) == ["zebra", "block/inner", "ant"]
    assert [float(tap[0, 0, 0, 0]) for tap in taps.values()] == [1, 2, 2]
    assert (result == taps["ant"]).all()


def test_sow_is_silent_unless_mutable():
    result = Net().apply({}, IMAGES)
    assert isinstance(result, jax.Array)
    assert intermediates.COLLECTION not in Net().init(jax.random.key(0), IMAGES)
    assert intermediates.collect({}) == {}
    assert intermediates.collect({"batch_stats": {"mean": 0}}) == {}


def test_collect_under_jit_and_grad():
    @jax.jit
    def first(x):
        _, mutated = Net().apply({}, x, mutable=["intermediates"])
        return jnp.sum(intermediates.collect(mutated)["ant"])

    assert (jax.grad(first)(IMAGES) == 2).all()


def test_a_point_tapped_twice():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            intermediates.tap(self, "same", x)
            intermediates.tap(self, "same", x)
            return x

    _, mutated = Twice().apply({}, IMAGES, mutable=["intermediates"])
    with pytest.raises(ValueError, match="'same' must be tapped once in a forward pass, got 2"):
        intermediates.collect(mutated)


def test_check_points():
    intermediates.check_points(["a", "b", "a"], ["b", "a", "c"], "student")
    intermediates.check_points([], [], "student")
    with pytest.raises(
        ValueError, match=r"teacher has no transfer point 'x', 'y'; it taps 'a', 'b':"
    ):
        intermediates.check_points(iter(["x", "a", "y"]), iter(["a", "b"]), "teacher")
    with pytest.raises(ValueError, match="it taps nothing: choose among these in config.transfer"):
        intermediates.check_points(["x"], [], "teacher")
