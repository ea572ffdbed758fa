"""Metrics: sums and counts, padding of weight 0, NaN counted as an error."""

import jax.numpy as jnp
import numpy as np
import pytest

from at_jax.training import metrics


def test_from_examples_returns_weighted_sum_and_total_weight():
    # 1*1 + 2*0.5 + 5*0 = 2 of 1 + 0.5 + 0 = 1.5.
    total, count = metrics.from_examples(jnp.array([1.0, 2.0, 5.0]), jnp.array([1.0, 0.5, 0.0]))
    assert (float(total), float(count)) == (2.0, 1.5)
    total, count = metrics.from_examples(jnp.array([1.0, 2.0, 5.0]))
    assert (float(total), float(count)) == (8.0, 3.0)
    assert total.dtype == count.dtype == jnp.float32


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_from_examples_with_non_finite_padding_ignores_it(bad):
    total, count = metrics.from_examples(jnp.array([1.0, bad]), jnp.array([1.0, 0.0]))
    assert (float(total), float(count)) == (1.0, 1.0)
    # A value of weight 1 is not ignored.
    assert not np.isfinite(metrics.from_examples(jnp.array([1.0, bad]), jnp.array([1.0, 1.0]))[0])


def test_from_examples_in_half_precision_sums_in_float32():
    # 2048 + 1 = 2048 in float16.
    total, _ = metrics.from_examples(jnp.array([2048.0, 1.0, 1.0], jnp.float16))
    assert float(total) == 2050.0


def test_errors_of_a_row_with_nan_are_one():
    nan = float("nan")
    logits = jnp.array([[2.0, 1.0], [2.0, 1.0], [nan, nan], [nan, 1.0], [1.0, nan]])
    # The largest logit of the first two is class 0; a row with NaN is wrong whatever argmax returns.
    assert metrics.errors(logits, jnp.array([0, 1, 0, 0, 1])).tolist() == [0, 1, 1, 1, 1]


def test_total_of_batches_of_different_sizes_adds_in_float64():
    parts = [
        {"error": (jnp.float32(1), jnp.float32(4)), "loss": (jnp.float32(8), jnp.float32(4))},
        # Two steps of one dispatch.
        {"error": (jnp.array([2.0, 0.0]), jnp.array([3.0, 1.0])), "loss": (jnp.zeros(2),) * 2},
    ]
    assert metrics.total(parts) == {"error": (3.0, 8.0), "loss": (8.0, 4.0)}
    assert metrics.total([]) == {}
    # 2^24 + 1 is not a float32: the host adds in float64.
    many = metrics.total([{"error": (np.float32(2**24), 1.0)}, {"error": (np.float32(1), 1.0)}])
    assert many["error"][0] == 2**24 + 1


def test_means_of_totals_divide_once():
    # One error in four and none in one: 1/5, not the mean (1/4 + 0) / 2 of batch means.
    parts = [{"error": (1.0, 4.0)}, {"error": (0.0, 1.0)}]
    assert metrics.means(metrics.total(parts)) == {"error": 0.2}
