"""Frozen modules: nothing of them changes in an update, and the optimizer holds nothing for them."""

import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from at_jax import freezing
from at_jax.errors import UserError
from at_jax.terms import GradientTransfer
from at_jax.training.components import optimizers

KEY = jax.random.key(3)
FROZEN = ("conv0", "bn0")


def split(tree):
    """The frozen and the other modules of a collection."""
    frozen = {name: leaf for name, leaf in tree.items() if name in FROZEN}
    return frozen, {name: leaf for name, leaf in tree.items() if name not in FROZEN}


def updated(objective, optimizer, state):
    step = tiny.jit(tiny.bound(objective, optimizer))
    return step(state, tiny.teacher_variables(objective), KEY, tiny.batch())[0]


@pytest.mark.parametrize("terms", [(), (GradientTransfer(),)], ids=["at", "gradient_at"])
def test_update_leaves_frozen_modules_alone_and_trains_the_others_in_evaluation_mode(terms):
    objective = dataclasses.replace(tiny.objective(None, None, *terms), freeze=FROZEN)
    optimizer = optimizers.without(tiny.sgd(), FROZEN)
    before = tiny.create(objective, optimizer)
    after = updated(objective, optimizer, before)
    for tree_before, tree_after in (
        (before.params["student"], after.params["student"]),
        (before.collections["batch_stats"], after.collections["batch_stats"]),
    ):
        (kept, changed), (kept_after, changed_after) = split(tree_before), split(tree_after)
        chex.assert_trees_all_equal(kept_after, kept)
        same = jax.tree.map(lambda a, b: bool(jnp.any(a == b)), changed_after, changed)
        # The bias of a classifier starts at 0; every other leaf moves.
        assert not any(jax.tree.leaves(same))
    # The momentum of the others, and nothing else.
    sizes = [leaf.size for leaf in jax.tree.leaves(after.opt_state) if leaf.size > 1]
    trained = split(after.params["student"])[1]
    assert sum(sizes) == sum(leaf.size for leaf in jax.tree.leaves(trained))


def test_network_whose_normalizations_are_frozen_computes_what_it_computes_in_evaluation():
    objective = dataclasses.replace(tiny.objective(), freeze=("bn0", "bn1"))
    variables = tiny.teacher_variables(dataclasses.replace(objective, teacher=objective.student))
    teacher = tiny.teacher_variables(objective)
    batch = tiny.batch()
    images = tiny.prepare(None, batch["image"], None)
    statistics = {"batch_stats": variables["batch_stats"]}

    @tiny.jit
    def outputs(params):
        weights = {"at": 1.0}
        return objective(params, statistics, teacher, images, batch["label"], weights)[1]

    found = outputs({"student": variables["params"]})
    np.testing.assert_allclose(
        found.logits, objective.student.apply(variables, images, train=False), rtol=1e-5
    )
    chex.assert_trees_all_equal(found.collections, statistics)


@pytest.mark.parametrize("attribute", [None, False])
def test_batch_norm_of_flax_and_statistics_of_any_module_are_frozen(attribute):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            norm = nn.BatchNorm(use_running_average=attribute, name="norm")
            x = norm(x) if attribute is not None else norm(x, use_running_average=not train)
            count = self.variable("counts", "count", lambda: jnp.zeros(()))
            count.value = count.value + 1
            return nn.Dropout(0.5, deterministic=not train, name="drop")(nn.Dense(3, name="top")(x))

    x = jnp.arange(8.0).reshape(4, 2)
    variables = Net().init(jax.random.key(0), x)
    with freezing.in_evaluation_mode(["norm"]):
        _, mutated = Net().apply(
            variables, x, train=True, mutable=["batch_stats", "counts"], rngs={"dropout": KEY}
        )
    chex.assert_trees_all_equal(mutated["batch_stats"], variables["batch_stats"])
    with freezing.in_evaluation_mode(["norm", "drop"]):  # the same for all random numbers
        first, second = (
            Net().apply(variables, x, train=True, mutable=["counts"], rngs={"dropout": key})[0]
            for key in jax.random.split(KEY)
        )
    np.testing.assert_array_equal(first, second)
    before = {name: tree for name, tree in variables.items() if name != "params"}
    changed = {"batch_stats": jax.tree.map(lambda leaf: leaf + 1, before["batch_stats"])}
    merged = freezing.restored(changed, before, ["norm"])
    chex.assert_trees_all_equal(merged, before)
    np.testing.assert_array_equal(
        freezing.restored(changed, before, ["top"])["batch_stats"]["norm"]["mean"],
        changed["batch_stats"]["norm"]["mean"],
    )


def test_restored_keeps_empty_collections():
    before = {"batch_stats": {}, "cache": {"conv": {"index": 1}}}
    assert freezing.restored({"cache": {"conv": {"index": 2}}}, before, ("conv",)) == before


class NnxNet(nnx.Module):
    """A linear layer and a normalization."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 2, rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)

    def __call__(self, x, train=False):
        return self.norm(self.linear(x), use_running_average=not train)


class WithNnx(nn.Module):
    """A linen layer, then a network in NNX."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(3, name="first")(x)
        return nnx.bridge.ToLinen(NnxNet, name="body")(x, train=train)


@pytest.mark.parametrize("names", [("body",), ("body/norm",), ("first", "body/linear")])
def test_frozen_modules_of_nnx_raise_user_error(names):
    # Their batch normalization would use the statistics of the batch, and never update its own.
    module, x = WithNnx(), jnp.ones((4, 3))
    variables = module.init(jax.random.key(0), x)
    with (
        freezing.in_evaluation_mode(names),
        pytest.raises(UserError, match="must be linen modules, got .* of a network in NNX"),
    ):
        module.apply(variables, x, True, mutable=["batch_stats"])


def test_linen_modules_next_to_nnx_can_be_frozen():
    module, x = WithNnx(), jnp.ones((4, 3))
    variables = module.init(jax.random.key(0), x)
    with freezing.in_evaluation_mode(("first",)):
        y, _ = module.apply(variables, x, True, mutable=["batch_stats"])
    expected, _ = module.apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("function", [freezing.count, freezing.stopped])
def test_name_that_is_no_sequence_raises_user_error(function):
    with pytest.raises(UserError, match=r"sequence of names, got 'first': pass \('first',\)"):
        function({"first": {"kernel": jnp.ones(2)}}, "first")
