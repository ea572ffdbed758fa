"""Schedules: values by hand, on the host and traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from at_jax.errors import UserError
from at_jax.training import schedules


def values(schedule, steps):
    """Evaluate for Python steps, and check that traced int32 steps give the same values."""
    on_host = [float(schedule(step)) for step in steps]
    traced = jax.jit(jax.vmap(schedule))(jnp.asarray(steps, jnp.int32))
    np.testing.assert_allclose(np.broadcast_to(traced, len(steps)), on_host, rtol=1e-5, atol=1e-7)
    return on_host


def test_step_decay_multiplies_at_each_boundary():
    # 0.1, times 0.2 from step 10 on and again from 20 on: 0.1, 0.02, 0.004.
    schedule = schedules.step_decay(0.1, (10, 20), 0.2)
    expected = [0.1, 0.1, 0.02, 0.02, 0.004, 0.004]
    np.testing.assert_allclose(values(schedule, [0, 9, 10, 19, 20, 10**6]), expected, rtol=1e-6)
    np.testing.assert_allclose(values(schedules.step_decay(0.1, (), 0.2), [0, 50]), [0.1, 0.1])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", [1000, 1000, 1000, 1000, 1000]),
        # 1000 * (1 - step/20), and 0 after the end.
        ("linear", [1000, 750, 500, 0, 0]),
        # 1000 * (1 + cos(pi * step/20)) / 2: at 1/4, (1 + sqrt(1/2)) / 2 = 0.853553; at 1/2, 1/2.
        ("cosine", [1000, 853.5534, 500, 0, 0]),
        # Times 1/10 from step 10 on, and again from 20 on.
        ("steps", [1000, 1000, 100, 10, 10]),
    ],
)
def test_decay_of_each_kind_equals_the_formula(kind, expected):
    schedule = schedules.decay(kind, 1000.0, 20, boundaries=(10, 20))
    np.testing.assert_allclose(values(schedule, [0, 5, 10, 20, 30]), expected, rtol=1e-5, atol=1e-4)


def test_decay_accepts_integers_and_rejects_an_unknown_kind():
    for kind in schedules.DECAYS:
        # An int, as a config may have it.
        assert float(schedules.decay(kind, 50, 10, boundaries=(5,))(0)) == 50
    with pytest.raises(
        UserError, match="one of constant, linear, cosine, steps, got 'exponential'"
    ):
        schedules.decay("exponential", 1.0, 10)


@pytest.mark.parametrize(
    ("kind", "warmup", "expected"),
    # At steps 0, 5, 10, 15, 20, 30 of 20.
    [
        ("constant", 0, [8, 8, 8, 8, 8, 8]),
        # 8 * step/10, then 8.
        ("constant", 10, [0, 4, 8, 8, 8, 8]),
        # Times 1/4 from step 15 on.
        ("steps", 0, [8, 8, 8, 2, 2, 2]),
        ("steps", 10, [0, 4, 8, 2, 2, 2]),
        # 4 * (1 + cos(pi * step/20)): 4 * (1 + sqrt(1/2)) = 6.828427, 4, 4 * (1 - sqrt(1/2)) = 1.171573.
        ("cosine", 0, [8, 6.828427, 4, 1.171573, 0, 0]),
        # 8 * step/10, then 4 * (1 + cos(pi * (step - 10)/10)).
        ("cosine", 10, [0, 4, 8, 4, 0, 0]),
    ],
)
def test_learning_rate_with_and_without_warmup_equals_the_formula(kind, warmup, expected):
    schedule = schedules.learning_rate(
        kind, 8.0, 20, warmup_steps=warmup, boundaries=(15,), factor=0.25
    )
    np.testing.assert_allclose(
        values(schedule, [0, 5, 10, 15, 20, 30]), expected, rtol=1e-5, atol=1e-6
    )


def test_learning_rate_one_cycle_rises_and_falls():
    # 30 % of 20 steps rise from 25/25 = 1: at half of them (1 + 25)/2 = 13; 14 steps fall: half is 12.5.
    schedule = schedules.learning_rate("one_cycle", 25.0, 20)
    expected = [1, 13, 25, 12.5, 0, 0]
    np.testing.assert_allclose(values(schedule, [0, 3, 6, 13, 20, 30]), expected, atol=1e-5)
    # Runs of one and two steps have a rate, too: the peak is at step 1.
    assert values(schedules.learning_rate("one_cycle", 25.0, 1), [0]) == [1]
    assert values(schedules.learning_rate("one_cycle", 25.0, 2), [0, 1]) == [1, 25]


def test_learning_rate_steps_without_warmup_compiles_to_step_decay():
    ours = schedules.learning_rate("steps", 0.1, 100, boundaries=(10, 20), factor=0.2)
    theirs = schedules.step_decay(0.1, (10, 20), 0.2)
    step = jnp.int32(0)
    assert str(jax.make_jaxpr(ours)(step)) == str(jax.make_jaxpr(theirs)(step))


@pytest.mark.parametrize(
    ("kind", "warmup", "message"),
    [
        ("exponential", 0, "one of steps, cosine, one_cycle, constant, got 'exponential'"),
        ("one_cycle", 5, "one_cycle has its own warm-up, got an additional warm-up of 5 steps"),
        ("cosine", 20, "shorter than the run of 20 steps, got 20 steps: lower optimizer.warmup"),
        ("steps", -1, "got -1 steps"),
    ],
)
def test_learning_rate_with_bad_arguments_raises(kind, warmup, message):
    with pytest.raises(UserError, match=message):
        schedules.learning_rate(kind, 1.0, 20, warmup_steps=warmup)


def test_learning_rate_accepts_integers_for_every_kind():
    for kind in schedules.SCHEDULES:
        assert 0 < float(schedules.learning_rate(kind, 1, 10, boundaries=(5,))(1)) <= 1


@pytest.mark.parametrize("kind", schedules.DECAYS)
def test_begin_is_zero_before_the_first_step_and_the_schedule_after(kind):
    schedule = schedules.decay(kind, 1000.0, 20, boundaries=(10,))
    late = schedules.begin(schedule, 5)
    assert values(late, [0, 4]) == [0, 0]
    assert values(late, [5, 12, 30]) == values(schedule, [5, 12, 30])


def test_begin_at_step_zero_returns_the_schedule_itself():
    schedule = schedules.decay("linear", 1000.0, 20)
    assert schedules.begin(schedule, 0) is schedule
