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


def test_top5_errors_count_the_classes_before_the_label():
    # Classes in the order of their logits: 11, 10, 9, 8, 7 are the five guesses.
    logits = jnp.broadcast_to(jnp.arange(12.0), (4, 12))
    assert metrics.errors(logits, jnp.array([11, 7, 6, 0]), top=5).tolist() == [0, 0, 1, 1]
    # Of equal logits the first five classes are the guesses, as argmax takes the first.
    zeros = jnp.zeros((3, 12))
    assert metrics.errors(zeros, jnp.array([0, 4, 5]), top=5).tolist() == [0, 0, 1]
    # A label that is no class is never among the guesses.
    assert metrics.errors(logits, jnp.array([-1, 12, 99, 11]), top=5).tolist() == [1, 1, 1, 0]
    assert metrics.errors(zeros.at[0, 3].set(jnp.nan), jnp.array([0, 0, 0]), top=5)[0] == 1


def test_top5_error_is_measured_with_more_than_ten_classes():
    labels = jnp.array([3, 8])
    measured = metrics.error_metrics(jnp.zeros((2, 11)), labels, jnp.array([1.0, 1.0]))
    assert {name: float(total) for name, (total, _) in measured.items()} == {
        "error": 2.0,
        "top5_error": 1.0,
    }
    assert set(metrics.error_metrics(jnp.zeros((2, 10)), labels)) == {"error"}
    found = metrics.percent({"error": 1.0, "top5_error": 0.5, "loss": 2.0}, "train")
    assert found == {"train_error": 100.0, "train_top5_error": 50.0}


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
