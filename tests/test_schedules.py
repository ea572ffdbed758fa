"""Schedules: by hand, on the host and traced, and the same in either."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from at_jax import schedules


def values(schedule, steps):
    """Of Python numbers; the traced int32 steps of a compiled program must give the same."""
    on_host = [float(schedule(step)) for step in steps]
    traced = jax.jit(jax.vmap(schedule))(jnp.asarray(steps, jnp.int32))
    np.testing.assert_allclose(np.broadcast_to(traced, len(steps)), on_host, rtol=1e-5, atol=1e-7)
    return on_host


def test_step_decay():
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
def test_decay(kind, expected):
    schedule = schedules.decay(kind, 1000.0, 20, boundaries=(10, 20))
    np.testing.assert_allclose(values(schedule, [0, 5, 10, 20, 30]), expected, rtol=1e-5, atol=1e-4)


def test_every_kind_is_offered_and_no_other():
    for kind in schedules.DECAYS:
        # An int, as a config may have it.
        assert float(schedules.decay(kind, 50, 10, boundaries=(5,))(0)) == 50
    with pytest.raises(
        ValueError, match="one of constant, linear, cosine, steps, got 'exponential'"
    ):
        schedules.decay("exponential", 1.0, 10)
