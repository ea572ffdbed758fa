"""Transfer points: taps, captured submodules, errors."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from at_jax import intermediates
from at_jax.errors import UserError

IMAGES = jnp.ones((1, 2, 2, 3))


class Block(nn.Module):
    """Doubles its input, and taps the result."""

    @nn.compact
    def __call__(self, x):
        intermediates.tap(self, "inner", 2 * x)
        return 2 * x


class Net(nn.Module):
    """Its taps are not in alphabetical order."""

    @nn.compact
    def __call__(self, x):
        intermediates.tap(self, "zebra", x)
        x = Block(name="block")(x)
        intermediates.tap(self, "ant", x)
        return x


class Double(nn.Module):
    """A module without taps."""

    def __call__(self, x):
        return 2 * x


class Encoder(nn.Module):
    """Without taps; calls its submodule `calls` times."""

    calls: int = 1

    def setup(self):
        self.layer = Double()

    def __call__(self, x):
        for _ in range(self.calls):
            x = self.layer(x)
        return x


class Untapped(nn.Module):
    """A network whose only transfer points are its submodules."""

    calls: int = 1

    @nn.compact
    def __call__(self, x):
        return 3 * Encoder(self.calls, name="encoder")(x)


def test_collect_returns_taps_in_the_order_of_the_network():
    result, mutated = Net().apply({}, IMAGES, mutable=["intermediates"])
    taps = intermediates.collect(mutated)
    assert list(taps) == ["zebra", "block/inner", "ant"]
    assert [float(tap[0, 0, 0, 0]) for tap in taps.values()] == [1, 2, 2]
    assert (result == taps["ant"]).all()


def test_collect_of_the_result_of_jit_returns_taps_in_the_order_of_their_names():
    apply = jax.jit(lambda x: Net().apply({}, x, mutable=["intermediates"]))
    assert list(intermediates.collect(apply(IMAGES)[1])) == ["ant", "block/inner", "zebra"]


def test_forward_returns_taps_in_the_order_of_the_network():
    _, taps, _ = intermediates.forward(Net(), {}, IMAGES)
    assert list(taps) == ["zebra", "block/inner", "ant"]


def test_tap_without_mutable_collection_stores_nothing():
    assert isinstance(Net().apply({}, IMAGES), jax.Array)
    assert intermediates.COLLECTION not in Net().init(jax.random.key(0), IMAGES)


def test_tap_of_a_name_with_a_slash_raises_user_error():
    # In the result of collect it could be the tap of a submodule.
    class Parent(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = Block(name="block")(x)
            intermediates.tap(self, "block/inner", x + 100)
            return x

    with pytest.raises(UserError, match="without '/', .* got 'block/inner': use 'block_inner'"):
        Parent().apply({}, IMAGES, mutable=["intermediates"])


def test_tap_named_like_a_captured_submodule_raises_user_error():
    class Parent(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = Encoder(name="encoder")(x)
            intermediates.tap(self, "encoder", x)
            return x

    with pytest.raises(
        UserError, match="must not be that of a submodule, got 'encoder': rename the tap"
    ):
        intermediates.forward(Parent(), {}, IMAGES, paths=("encoder",))


@pytest.mark.parametrize("in_setup", [False, True])
def test_tap_named_like_a_layer_raises_user_error(in_setup):
    class Compact(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(3, name="layer")(x)
            intermediates.tap(self, "layer", x)
            return x

    class Setup(nn.Module):
        def setup(self):
            self.layer = nn.Dense(3)

        def __call__(self, x):
            intermediates.tap(self, "layer", self.layer(x))
            return x

    module = Setup() if in_setup else Compact()
    with pytest.raises(UserError, match="must not be that of a submodule, got 'layer'"):
        module.init_with_output(jax.random.key(0), IMAGES, mutable=["params", "intermediates"])


@pytest.mark.parametrize("name", ["", 3])
def test_tap_of_no_name_raises_user_error(name):
    class Parent(nn.Module):
        @nn.compact
        def __call__(self, x):
            intermediates.tap(self, name, x)
            return x

    with pytest.raises(UserError, match=f"must be a string .* got {name!r}: use '"):
        Parent().apply({}, IMAGES, mutable=["intermediates"])


def test_output_that_a_lifted_module_does_not_store_names_the_fix():
    class Body(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.Dense(x.shape[-1])(x), None

    def parent(**axes):
        class Parent(nn.Module):
            @nn.compact
            def __call__(self, x):
                scan = nn.scan(Body, variable_axes=axes, split_rngs={"params": True}, length=2)
                return scan(name="s")(x, None)[0]

        module = Parent()
        return module, module.init(jax.random.key(0), IMAGES)

    with pytest.raises(UserError, match="output of 's' is not stored: add 'intermediates' to the"):
        intermediates.forward(*parent(params=0), IMAGES, paths=["s"])
    module, variables = parent(params=0, intermediates=0)
    _, taps, _ = intermediates.forward(module, variables, IMAGES, paths=["s/Dense_0"])
    assert taps["s/Dense_0"].shape == (2, *IMAGES.shape)


def test_forward_with_a_single_path_raises():
    with pytest.raises(UserError, match=r"paths must be a sequence, got 'block': pass \['block'\]"):
        intermediates.forward(Block(), {}, IMAGES, paths="block")


@pytest.mark.parametrize("mutated", [{}, {"batch_stats": {"mean": 0}}, {"intermediates": {}}])
def test_collect_of_nothing_tapped_raises_user_error(mutated):
    with pytest.raises(
        UserError, match=r'no activation was tapped: pass mutable=\["intermediates"'
    ):
        intermediates.collect(mutated)


def test_collect_under_jit_and_grad_is_differentiable():
    @jax.jit
    def first(x):
        _, mutated = Net().apply({}, x, mutable=["intermediates"])
        return jnp.sum(intermediates.collect(mutated)["ant"])

    assert (jax.grad(first)(IMAGES) == 2).all()


def test_collect_of_values_that_are_not_tuples_returns_them():
    # NNX modules behind nnx.bridge.to_linen sow the value itself.
    assert intermediates.collect({"intermediates": {"a": 1.0}}) == {"a": 1.0}


def test_collect_of_a_name_tapped_twice_raises_user_error():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            intermediates.tap(self, "same", x)
            intermediates.tap(self, "same", x)
            return x

    _, mutated = Twice().apply({}, IMAGES, mutable=["intermediates"])
    with pytest.raises(
        UserError, match="'same' must be computed once .* got 2 calls: give every tap"
    ):
        intermediates.collect(mutated)


def test_forward_of_an_nnx_module_names_both_ways():
    class Net(nnx.Module):
        pass

    with pytest.raises(UserError, match=r"linen module, got Net: return the .*bridge.to_linen"):
        intermediates.forward(Net(), {}, IMAGES)


def test_forward_with_an_unknown_path_names_the_nearest_submodule():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            intermediates.tap(self, "input", x)
            return nn.Dense(2, name="body")(x)

    variables = Net().init(jax.random.key(0), IMAGES)
    with pytest.raises(
        UserError, match="taps of Net, which has body, input, got 'boddy': did you mean 'body'"
    ):
        intermediates.forward(Net(), variables, IMAGES, paths=("boddy", "body"))
    _, taps, _ = intermediates.forward(
        Net(), variables, IMAGES, paths=("boddy", "body", "input"), check_paths=False
    )
    assert set(taps) == {"input", "body"}


def test_forward_returns_output_taps_and_other_collections():
    class Counting(nn.Module):
        @nn.compact
        def __call__(self, x, *, step):
            count = self.variable("counts", "calls", lambda: jnp.zeros((), jnp.int32))
            count.value = count.value + step
            intermediates.tap(self, "input", x)
            return 5 * x

    variables = {"counts": {"calls": jnp.array(1)}}
    result, taps, mutated = intermediates.forward(
        Counting(), variables, IMAGES, mutable=("counts",), step=2
    )
    assert (result == 5).all() and (taps["input"] == 1).all()
    assert set(mutated) == {"counts"} and mutated["counts"]["calls"] == 3


def test_forward_with_paths_captures_the_output_of_submodules():
    # The encoder's layer returns 2, so does the encoder, and the network 6.
    result, taps, mutated = intermediates.forward(
        Untapped(), {}, IMAGES, paths=("encoder/layer", "encoder")
    )
    assert set(taps) == {"encoder", "encoder/layer"}
    assert all((tap == 2).all() for tap in taps.values())
    assert (result == 6).all() and mutated == {}


def test_forward_with_paths_captures_nothing_else():
    _, taps, _ = intermediates.forward(Net(), {}, IMAGES, paths=("block",))
    assert set(taps) == {"zebra", "block/inner", "block", "ant"}
    options = {"paths": ("encoder/none",), "check_paths": False}
    _, taps, _ = intermediates.forward(Untapped(), {}, IMAGES, **options)
    assert taps == {}


def test_forward_with_a_submodule_called_twice_raises_user_error():
    message = "'encoder/layer' must be computed once .* got 2 calls: .* in the module that calls it"
    with pytest.raises(UserError, match=message):
        intermediates.forward(Untapped(calls=2), {}, IMAGES, paths=("encoder/layer",))


def test_check_points_accepts_known_points():
    intermediates.check_points(["a", "b", "a"], ["b", "a", "c"], "student")
    intermediates.check_points([], [], "student")


def test_check_points_of_missing_points_raises_user_error():
    with pytest.raises(
        UserError, match="teacher has no transfer point 'x', 'y'; it taps 'a', 'b':"
    ):
        intermediates.check_points(iter(["x", "a", "y"]), iter(["a", "b"]), "teacher")
    with pytest.raises(
        UserError, match=r"it taps nothing: choose from these, name a submodule by its path"
    ):
        intermediates.check_points(["x"], [], "teacher")
    many = [f"layer{i}" for i in range(8)]
    with pytest.raises(UserError, match="'layer4' and 3 more: choose"):
        intermediates.check_points(["x"], many, "student")
