"""Devices: four give what one gives (design 4.13), one trace, and errors that name what fits."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from at_jax import parallel, step
from at_jax.objective import Objective
from at_jax.terms import Attention, Distillation, InputGradient

KEY = jax.random.key(3)
ALL = tuple(jax.local_devices())
TERMS = {"distillation": Distillation(), "attention": Attention()}
# Not part of TERMS: differentiated twice, they take most of the time to compile.
SECOND_ORDER = {name: InputGradient() for name in ("gradient_at", "flip_symmetry", "min_l2")}


@functools.cache
def mapped_step(count, bn_axis_name, several, beta, order):
    terms = TERMS if order == 1 else SECOND_ORDER
    terms = tiny.objective(tiny.TinyNet(bn_axis_name=bn_axis_name), **terms)
    step = tiny.bound(terms, several=several, beta=beta, axis_name=parallel.AXIS_NAME)
    return terms, parallel.map_train(step, ALL[:count])


# The weight is as large as the paper's: what differs between devices shows.
def dispatch(count, bn_axis_name, batch, *, several=False, beta=1e3, order=1):
    """One dispatch on `count` devices, from the same start: state and metrics, on the host."""
    terms, mapped = mapped_step(count, bn_axis_name, several, beta, order)
    start = tiny.create(terms), tiny.teacher_variables(terms), KEY
    start = parallel.replicate(start, ALL[:count])
    return jax.device_get(mapped(*start, parallel.shard(batch, count, axis=int(several))))


def test_four_devices_equal_one_after_a_step():
    batch = tiny.batch(16)
    assert not np.array_equal(batch["image"][:4], batch["image"][4:8])
    one, measured = dispatch(1, parallel.AXIS_NAME, batch)
    four, of_four = dispatch(4, parallel.AXIS_NAME, batch)
    assert tiny.largest_deviation(four, one) < 1e-5
    assert set(of_four) == {"loss", "loss/distillation", "loss/attention", "error"}
    for name, (total, count) in measured.items():
        np.testing.assert_allclose(of_four[name], (total, count), rtol=1e-5, err_msg=name)
        assert of_four[name][1] == 16  # the global batch, not one device's share
    # Without synchronisation each device normalises by its own share: the comparison can fail.
    apart, _ = dispatch(4, None, batch)
    assert tiny.largest_deviation(apart, one) > 1e-3
    # The order of the shards is that of the batch, and the mean forgets it.
    swapped = {name: array[::-1].copy() for name, array in batch.items()}
    assert tiny.largest_deviation(dispatch(4, parallel.AXIS_NAME, swapped)[0], one) < 1e-5


def test_second_order_on_four_devices_equals_one_after_a_step():
    # At weight 1e4 the means of J taken on each device would be off by 40 % (design 4.2).
    batch = tiny.batch(16)
    one, measured = dispatch(1, parallel.AXIS_NAME, batch, beta=1e4, order=2)
    four, of_four = dispatch(4, parallel.AXIS_NAME, batch, beta=1e4, order=2)
    assert {f"loss/{name}" for name in SECOND_ORDER} < set(of_four)
    assert tiny.largest_deviation(four, one) < 1e-5
    for name, (total, count) in measured.items():
        np.testing.assert_allclose(of_four[name], (total, count), rtol=1e-5, err_msg=name)
    # The terms do move the parameters, and the comparison can fail.
    apart, _ = dispatch(4, None, batch, beta=1e4, order=2)
    assert tiny.largest_deviation(apart, one) > 1e-3


def test_several_steps_on_four_devices():
    batches = tiny.batch(8, steps=2)
    one, measured = dispatch(1, parallel.AXIS_NAME, batches, several=True)
    four, of_four = dispatch(4, parallel.AXIS_NAME, batches, several=True)
    assert four.step == 2
    # One step more, where a ReLU may switch: looser than after one.
    assert tiny.largest_deviation(four.params, one.params) < 1e-3
    for name, (total, count) in measured.items():
        np.testing.assert_allclose(of_four[name], (total, count), rtol=1e-3, err_msg=name)


def test_the_step_is_traced_and_compiled_once(caplog):
    terms = tiny.objective(tiny.TinyNet(bn_axis_name=parallel.AXIS_NAME), **TERMS)
    chex.clear_trace_counter()
    train_step = tiny.bound(terms, axis_name=parallel.AXIS_NAME)

    @chex.assert_max_traces(n=1)
    def counted(*arguments):
        return train_step(*arguments)

    used = ALL
    mapped = parallel.map_train(counted, used)
    state, teacher, key = parallel.replicate(
        (tiny.create(terms), tiny.teacher_variables(terms), KEY), used
    )
    compiled = []
    with jax.log_compiles():
        for seed in range(3):
            caplog.clear()
            shards = parallel.shard(tiny.batch(8, seed=seed), 4)
            state, _ = mapped(state, teacher, key, shards)
            compiled.append(["Compiling" in record.getMessage() for record in caplog.records])
    assert state.step == 3
    # The first call compiles (so the log is read right); no later one does.
    assert any(compiled[0]) and not any(compiled[1]) and not any(compiled[2])


def test_evaluation_on_four_devices():
    module = tiny.TinyNet(bn_axis_name=parallel.AXIS_NAME)
    variables = tiny.teacher_variables(Objective(module, module))
    batch = tiny.batch(8)
    # Padding of the last batch lies on the last device alone.
    padded = {"image": batch["image"], "label": batch["label"]}
    padded["weight"] = np.array([1] * 6 + [0] * 2, np.float32)
    results = []
    for count in (1, 4):
        used = ALL[:count]
        evaluate = functools.partial(
            step.eval_step,
            module=module,
            prepare=lambda images: images.astype(jnp.float32) / 128 - 1,
            axis_name=parallel.AXIS_NAME,
        )
        mapped = parallel.map_eval(evaluate, used)
        measured = mapped(parallel.replicate(variables, used), parallel.shard(padded, count))
        results.append(jax.device_get(measured))
    one, four = results
    assert one["error"][1] == four["error"][1] == 6
    for name in one:
        np.testing.assert_allclose(four[name], one[name], rtol=1e-5)


def test_shard():
    batch = {"image": np.arange(24).reshape(6, 4), "label": np.arange(6)}
    cut = parallel.shard(batch, 3)
    assert cut["label"].tolist() == [[0, 1], [2, 3], [4, 5]]
    np.testing.assert_array_equal(cut["image"][2, 1], [20, 21, 22, 23])
    # (steps, B) to (devices, steps, B / devices).
    steps = parallel.shard({"label": np.arange(8).reshape(2, 4)}, 2, axis=1)["label"]
    assert steps.tolist() == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    assert steps.flags["C_CONTIGUOUS"]
    with pytest.raises(ValueError, match="reshape"):
        parallel.shard(batch, 4)


def test_devices():
    assert len(ALL) == 4
    assert parallel.devices(2, batch_size=8) == ALL[:2]
    assert parallel.describe(ALL[:3]) == "3 x cpu"
    assert parallel.default_steps_per_dispatch(ALL) == 1
    for count in (5, -1):
        with pytest.raises(ValueError, match=rf"must be 0 \(automatic\) to 4 .*got {count}"):
            parallel.devices(count, batch_size=20)
    with pytest.raises(ValueError, match="= 2 x 3 = 6, got 8: use 6 or 12"):
        parallel.devices(2, batch_size=8, accumulation=3)


@pytest.mark.parametrize(
    ("size", "accumulation", "count"),
    # As many as cut the batch evenly: 8 = 4 x 2; 6 = 3 x 2; 6 = 3 x 2 micro-batches; 7 by none.
    [(8, 1, 4), (6, 1, 3), (6, 2, 3), (10, 5, 2), (7, 1, 1)],
)
def test_automatic_count(size, accumulation, count):
    assert parallel.devices(0, size, accumulation) == ALL[:count]


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
def test_batch_sizes(size, count, accumulation, fitting):
    used = ALL[:count]
    message = (
        f"{count} x {accumulation} = {count * accumulation}, got {size}: use {fitting}, or fewer"
    )
    with pytest.raises(ValueError, match=message):
        parallel.check_batch_size(size, used, accumulation)
    # What the message names does fit.
    for name in fitting.split(" or "):
        parallel.check_batch_size(int(name), used, accumulation)


def test_replicate():
    used = ALL
    tree = parallel.replicate({"a": np.arange(3.0, dtype=np.float32), "key": KEY}, used)
    assert tree["a"].sharding.is_fully_replicated
    assert tree["a"].sharding.device_set == set(used)
    np.testing.assert_array_equal(tree["a"], [0, 1, 2])
    assert tree["key"].dtype == KEY.dtype
