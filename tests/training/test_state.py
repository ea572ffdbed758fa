"""The state of training before its first step."""

import jax
import jax.numpy as jnp
import numpy as np
import own_modules
import tiny

from at_jax.models import Adapter
from at_jax.training import state

IMAGE = (tiny.SIZE, tiny.SIZE, tiny.CHANNELS)


def test_create_initializes_student_terms_and_optimizer_from_the_key():
    adapter = Adapter((("early", 5),))
    taps = {"early": jax.ShapeDtypeStruct((1, 6, 6, 3), jnp.float32)}
    modules = {"f_actt": adapter}
    make = tiny.jit(lambda key: state.create(tiny.TinyNet(), modules, tiny.sgd(), key, IMAGE, taps))
    # The default generator takes five times as long to compile.
    first, again, other = (make(jax.random.key(seed, impl="rbg")) for seed in (0, 0, 1))
    assert first.step == 0 and first.step.dtype == jnp.int32
    assert set(first.params) == {"student", "f_actt"}
    assert first.params["f_actt"]["early"]["kernel"].shape == (1, 1, 3, 5)
    # The trace of momentum covers everything that is trained, and starts at 0.
    trace = [leaf for leaf in jax.tree.leaves(first.opt_state) if leaf.ndim]
    assert len(trace) == len(jax.tree.leaves(first.params))
    assert all(jnp.all(leaf == 0) for leaf in trace)
    assert set(first.collections) == {"batch_stats"}
    for name in ("bn0", "bn1"):
        np.testing.assert_array_equal(first.params["student"][name]["scale"], 1)
        np.testing.assert_array_equal(first.collections["batch_stats"][name]["mean"], 0)
    assert tiny.largest_deviation(first.params, again.params) == 0
    assert tiny.largest_deviation(first.params, other.params) > 0
    # No layer has the width of a teacher.
    assert first.params["student"]["conv1"]["kernel"].shape[-1] == 4


def test_create_with_several_modules_gives_each_its_own_key():
    taps = {"early": jax.ShapeDtypeStruct((1, 6, 6, 3), jnp.float32)}
    modules = {name: Adapter((("early", 5),)) for name in ("one", "two")}
    make = tiny.jit(lambda key: state.create(tiny.TinyNet(), modules, tiny.sgd(), key, IMAGE, taps))
    params = make(jax.random.key(0, impl="rbg")).params
    one, two = (params[name]["early"]["kernel"] for name in ("one", "two"))
    assert one.shape == two.shape and jnp.all(one != two)


def test_create_without_batch_norm_and_modules_has_student_parameters_alone():
    shapes = jax.eval_shape(
        lambda key: state.create(
            tiny.TinyNet(batch_norm=False), {}, tiny.sgd(), key, (8, 8, 1), {}
        ),
        jax.random.key(0),
    )
    assert shapes.collections == {} and set(shapes.params) == {"student"}


def test_create_of_a_module_with_other_collections_carries_them_uncounted():
    make = tiny.jit(
        lambda key: state.create(own_modules.Counting(), {}, tiny.sgd(), key, (8, 8, 1), {})
    )
    shapes = make(jax.random.key(0))
    assert set(shapes.collections) == {"counters", "running", "constants"}
    assert shapes.collections["counters"]["calls"] == 0


def test_variables_of_a_state_are_the_student_s_parameters_and_collections():
    created = tiny.create(tiny.objective())
    variables = state.variables_of(created)
    assert set(variables) == {"params", "batch_stats"}
    assert variables["params"] is created.params["student"]


def test_carried_collections_leave_out_parameters_and_sown_values():
    variables = {
        "params": {"kernel": 1.0},
        "intermediates": {"early": (1.0,)},
        "losses": {"layer": {"l2": (1.0, 2.0)}},
        "batch_stats": {"layer": {"mean": 0.0}},
        "counters": {"calls": 0},
    }
    assert set(state.carried_collections(variables)) == {"batch_stats", "counters"}


def test_typed_keys_are_numbers_in_between():
    tree = {"key": jax.random.key(3), "rbg": jax.random.key(4, impl="rbg"), "count": jnp.ones(2)}
    numbers = state.without_keys(tree)
    assert numbers["key"].dtype == numbers["rbg"].dtype == jnp.uint32
    back = state.with_keys(numbers, state.key_types(tree))
    assert [leaf.dtype for leaf in jax.tree.leaves(back)] == [
        leaf.dtype for leaf in jax.tree.leaves(tree)
    ]
    assert jax.random.key_data(back["rbg"]).tolist() == jax.random.key_data(tree["rbg"]).tolist()
