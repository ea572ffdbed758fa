"""Devices: four give the results of one, one trace per step, and errors that name the sizes that fit."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from sharded import SEED, dispatch, make_objective

from at_jax.distributed import devices
from at_jax.errors import UserError
from at_jax.objective import Objective
from at_jax.terms import FlipSymmetry, GradientTransfer, MinL2, SobolevTraining
from at_jax.training import evaluation

KEY = jax.random.key(SEED)
ALL = tuple(jax.local_devices())
# Terms that are differentiated twice take most of the compilation time, so they have a test of their own.
# The random vectors of SobolevTraining depend on the position in the global batch.
SECOND_ORDER = (GradientTransfer(), FlipSymmetry(), MinL2(), SobolevTraining())


def assert_metrics_close(measured, expected, rtol):
    assert set(measured) == set(expected)
    for name, pair in expected.items():
        np.testing.assert_allclose(measured[name], pair, rtol=rtol, err_msg=name)


def test_map_train_on_four_devices_equals_one_after_a_step():
    batch = tiny.batch(16)
    assert not np.array_equal(batch["image"][:4], batch["image"][4:8])
    one, measured = dispatch(1, devices.AXIS_NAME, batch)
    four, of_four = dispatch(4, devices.AXIS_NAME, batch)
    assert tiny.largest_deviation(four, one) < 1e-5
    assert set(of_four) == {"loss", "loss/distillation", "loss/attention", "error"}
    assert_metrics_close(of_four, measured, rtol=1e-5)
    assert {float(count) for _, count in of_four.values()} == {
        16
    }  # the global batch, not one shard
    # Without synchronization each device normalizes by its own shard: the comparison can fail.
    apart, _ = dispatch(4, None, batch)
    assert tiny.largest_deviation(apart, one) > 1e-3
    # The order of the examples does not change their mean.
    swapped = {name: array[::-1].copy() for name, array in batch.items()}
    assert tiny.largest_deviation(dispatch(4, devices.AXIS_NAME, swapped)[0], one) < 1e-5


def test_map_train_of_second_order_terms_on_four_devices_equals_one_after_a_step():
    # At weight 1e4, input gradients of each device's mean loss would differ by 40 %.
    options = {"beta": 1e4, "terms": SECOND_ORDER}
    batch = tiny.batch(16)
    one, measured = dispatch(1, devices.AXIS_NAME, batch, **options)
    four, of_four = dispatch(4, devices.AXIS_NAME, batch, **options)
    assert {f"loss/{term.metric}" for term in SECOND_ORDER} < set(of_four)
    assert tiny.largest_deviation(four, one) < 1e-5
    assert_metrics_close(of_four, measured, rtol=1e-5)
    # The terms do change the parameters, and the comparison can fail.
    apart, _ = dispatch(4, None, batch, **options)
    assert tiny.largest_deviation(apart, one) > 1e-3


def test_map_train_of_several_steps_on_four_devices_equals_one():
    batches = tiny.batch(8, steps=2)
    one, measured = dispatch(1, devices.AXIS_NAME, batches, several=True)
    four, of_four = dispatch(4, devices.AXIS_NAME, batches, several=True)
    assert four.step == 2
    # Looser than after one step, because a ReLU may switch in the second.
    assert tiny.largest_deviation(four.params, one.params) < 1e-3
    assert_metrics_close(of_four, measured, rtol=1e-3)


def test_map_train_traces_and_compiles_the_step_once(caplog):
    objective = make_objective(devices.AXIS_NAME)
    chex.clear_trace_counter()
    train_step = tiny.bound(objective, axis_name=devices.AXIS_NAME)

    @chex.assert_max_traces(n=1)
    def counted(*arguments):
        return train_step(*arguments)

    mapped = devices.map_train(counted, ALL)
    start = tiny.create(objective), tiny.teacher_variables(objective), KEY
    state, teacher, key = devices.replicate(start, ALL)
    compiled = []
    with jax.log_compiles():
        for seed in range(3):
            caplog.clear()
            shards = devices.shard(tiny.batch(8, seed=seed), 4)
            state, _ = mapped(state, teacher, key, shards)
            compiled.append(["Compiling" in record.getMessage() for record in caplog.records])
    assert state.step == 3
    # The first call compiles, which shows that the log is parsed correctly; later calls do not.
    assert any(compiled[0]) and not any(compiled[1]) and not any(compiled[2])


def test_map_eval_on_four_devices_equals_one_and_ignores_padding():
    objective = Objective(tiny.TinyNet(bn_axis_name=devices.AXIS_NAME), tiny.TinyNet())
    variables = tiny.teacher_variables(objective)
    batch = tiny.batch(8)
    # All padding of the last batch is on the last device.
    padded = {"image": batch["image"], "label": batch["label"]}
    padded["weight"] = np.array([1] * 6 + [0] * 2, np.float32)
    results = []
    for used in (ALL[:1], ALL):
        evaluate = functools.partial(
            evaluation.eval_step,
            objective=objective,
            prepare=lambda images: images.astype(jnp.float32) / 128 - 1,
            axis_name=devices.AXIS_NAME,
        )
        mapped = devices.map_eval(evaluate, used)
        shards = devices.shard(padded, len(used))
        # Without and with the variables of a teacher.
        without = mapped(devices.replicate(variables, used), None, shards)
        both = mapped(*devices.replicate((variables, variables), used), shards)
        chex.assert_trees_all_equal(both, without)
        results.append(jax.device_get(without))
    (one, predicted), (four, predicted_by_four) = results
    chex.assert_trees_all_close(predicted_by_four, predicted, rtol=1e-5)
    assert one["error"][1] == four["error"][1] == 6
    assert_metrics_close(four, one, rtol=1e-5)


def test_map_eval_runs_without_jit():
    def step(variables, teacher, batch):
        return jax.lax.psum(variables * jnp.sum(batch["image"]), devices.AXIS_NAME)

    used = jax.devices()[:1]
    with jax.disable_jit():
        mapped = devices.map_eval(step, tuple(used))
        assert mapped(jnp.float32(2), None, {"image": jnp.ones((1, 3))}) == 6


def test_shard_splits_the_batch_axis_into_contiguous_parts():
    batch = {"image": np.arange(24).reshape(6, 4), "label": np.arange(6)}
    cut = devices.shard(batch, 3)
    assert cut["label"].tolist() == [[0, 1], [2, 3], [4, 5]]
    np.testing.assert_array_equal(cut["image"][2, 1], [20, 21, 22, 23])
    # (steps, B) to (devices, steps, B / devices).
    steps = devices.shard({"label": np.arange(8).reshape(2, 4)}, 2, axis=1)["label"]
    assert steps.tolist() == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    assert steps.flags["C_CONTIGUOUS"]
    with pytest.raises(ValueError, match="reshape"):
        devices.shard(batch, 4)


def test_select_with_a_count_returns_the_first_devices():
    assert len(ALL) == 4
    assert devices.select(2, batch_size=8) == ALL[:2]
    assert devices.describe(ALL[:3]) == "3 x cpu"
    assert devices.default_steps_per_dispatch(ALL) == 1
    for count in (5, -1):
        with pytest.raises(UserError, match=rf"must be 0 \(automatic\) to 4 .*got {count}"):
            devices.select(count, batch_size=20)
    with pytest.raises(UserError, match="= 2 x 3 = 6, got 8: use 6 or 12"):
        devices.select(2, batch_size=8, accumulation=3)


@pytest.mark.parametrize(
    ("size", "accumulation", "count"),
    # The largest number that divides the batch: 8 = 4 x 2; 6 = 3 x 2; 6 = 3 x 2 micro-batches; 7 is prime.
    [(8, 1, 4), (6, 1, 3), (6, 2, 3), (10, 5, 2), (7, 1, 1)],
)
def test_select_without_a_count_takes_the_largest_that_fits(size, accumulation, count):
    assert devices.select(0, size, accumulation) == ALL[:count]


@pytest.mark.parametrize(
    ("size", "count", "accumulation", "fitting"),
    [
        (130, 4, 1, "128 or 132"),
        (4, 4, 2, "8"),
        (9, 4, 1, "8 or 12"),
        (0, 2, 1, "2"),
        (31, 2, 4, "24 or 32"),
    ],
)
def test_check_batch_size_names_the_nearest_sizes_that_fit(size, count, accumulation, fitting):
    used = ALL[:count]
    message = (
        f"{count} x {accumulation} = {count * accumulation}, got {size}: use {fitting}, or fewer"
    )
    with pytest.raises(UserError, match=message):
        devices.check_batch_size(size, used, accumulation)
    # The sizes in the message do fit.
    for name in fitting.split(" or "):
        devices.check_batch_size(int(name), used, accumulation)


def test_replicate_copies_arrays_and_keys_to_all_devices():
    tree = devices.replicate({"a": np.arange(3.0, dtype=np.float32), "key": KEY}, ALL)
    assert tree["a"].sharding.is_fully_replicated
    assert tree["a"].sharding.device_set == set(ALL)
    np.testing.assert_array_equal(tree["a"], [0, 1, 2])
    assert tree["key"].dtype == KEY.dtype


def test_idle_devices_are_those_that_the_batch_does_not_divide_among():
    assert [devices.idle(devices.select(0, size)) for size in (8, 6, 7)] == [0, 1, 3]
