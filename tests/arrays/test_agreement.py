"""Agreement of two networks in predictions and maps, by hand."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from at_jax import agreement
from at_jax.errors import UserError


def test_top1_by_hand():
    # Predicted classes: student 1, 0, 2; teacher 1, 2, 2. They agree on the first and the last.
    student = np.array([[0, 5, 1], [3, 0, 2], [0, 0, 9]])
    teacher = np.array([[1, 2, 0], [0, 1, 4], [2, 1, 3]])
    np.testing.assert_array_equal(agreement.top1(student, teacher), [1, 0, 1])
    # Networks that diverged do not agree.
    undefined = np.full((3, 3), np.nan)
    np.testing.assert_array_equal(agreement.top1(undefined, undefined), [0, 0, 0])
    np.testing.assert_array_equal(agreement.top1(student, undefined), [0, 0, 0])


def test_divergence_by_hand():
    # Teacher (3/4, 1/4), student (1/2, 1/2):
    # 3/4 log((3/4)/(1/2)) + 1/4 log((1/4)/(1/2)) = 3/4 log 3/2 - 1/4 log 2 = 0.304099 - 0.173287
    student, teacher = np.log([[0.5, 0.5]]), np.log([[0.75, 0.25]])
    assert agreement.divergence(student, teacher) == pytest.approx([0.130812], abs=1e-6)
    # Teacher and student exchanged: 1/2 log((1/2)/(3/4)) + 1/2 log((1/2)/(1/4)) = (log 2/3 + log 2) / 2
    assert agreement.divergence(teacher, student) == pytest.approx([np.log(4 / 3) / 2])
    # A constant added to the logits changes nothing, however large.
    assert agreement.divergence(student + 1e4, teacher) == pytest.approx([0.130812], abs=1e-6)


def test_divergence_with_masked_classes_counts_the_others():
    # The numbers of the test by hand, with a class that both mask, and one that the teacher alone masks.
    student = np.array([[0.0, 0.0, -np.inf], [0.0, 0.0, 0.0]])
    teacher = np.array([[np.log(3), 0.0, -np.inf]] * 2)
    # The student gives each class 1/3 in the second row: log(3/2) more than with 1/2.
    expected = [0.130812, 0.130812 + np.log(3 / 2)]
    assert agreement.divergence(student, teacher) == pytest.approx(expected, abs=1e-6)
    assert agreement.divergence(teacher[:1], student[1:]) == np.inf  # the student alone masks


def test_correlation_by_hand():
    # a = 1, 2, 3, 4 is -3/2, -1/2, 1/2, 3/2 about its mean; the squares sum to 5.
    # b = 2, 1, 4, 3 is -1/2, -3/2, 3/2, 1/2, also 5. Products: 3/4 + 3/4 + 3/4 + 3/4 = 3. So 3/5.
    a, b = np.array([[[1, 2], [3, 4]]]), np.array([[[2, 1], [4, 3]]])
    assert agreement.correlation(a, b) == pytest.approx([0.6])
    # Independent of scale and offset, also where squares leave the range.
    assert agreement.correlation(1e-200 * a, 7.0 * b + 5) == pytest.approx([0.6])


def test_correlation_of_proportional_maps_is_at_most_one():
    # Rounding errors alone would give up to 1 + 4e-16.
    q = np.random.default_rng(0).random((2000, 4, 4))
    for sign in (1, -1):
        found = sign * agreement.correlation(q, sign * (3 * q + 1))
        assert np.all(found <= 1) and np.all(found > 1 - 1e-12)


def test_correlation_with_a_constant_map_is_zero():
    q = np.arange(6.0).reshape(1, 2, 3)
    for constant in (np.zeros_like(q), np.full_like(q, 0.1)):
        assert agreement.correlation(q, constant) == pytest.approx([0])


def test_correlation_of_different_sizes_resizes_the_teacher_map():
    # Columns 0, 0, 1, 1 shrink to a dark and a bright one: up to scale and offset, the 2x2 map of 0 and 1.
    teacher = np.repeat(np.array([[0.0, 0.0, 1.0, 1.0]]), 4, axis=0)[None]
    student = np.array([[[0.0, 1.0], [0.0, 1.0]]])
    assert agreement.correlation(student, teacher) == pytest.approx([1])


@pytest.mark.parametrize("scale", [1e-320, 1e-46, 1e39, 1e300])
def test_correlation_of_different_sizes_does_not_depend_on_scale(scale):
    student, teacher = (np.random.default_rng(n).random((2, n, n)) for n in (8, 4))
    expected = agreement.correlation(student, teacher)
    tolerance = 1e-3 if scale < 1e-300 else 1e-12  # subnormal numbers have few digits
    assert agreement.correlation(student, scale * teacher) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("sizes", [(4, 4), (4, 8)])
def test_correlation_of_maps_that_vary_little_is_that_of_the_variation(sizes):
    q_s, q_t = (np.random.default_rng(n).random((1, n, n)) for n in sizes)
    expected = agreement.correlation(q_s, q_t)
    assert agreement.correlation(q_s, 1 + 1e-7 * q_t) == pytest.approx(expected, abs=1e-6)


def test_correlation_with_a_resized_constant_map_is_zero():
    q = np.random.default_rng(0).random((1, 7, 5))
    for dtype in (np.float32, np.float64):
        for size in (3, 9):
            assert agreement.correlation(q, np.full((1, size, size), 0.1, dtype)) == [0]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, np.float32, np.float64])
@pytest.mark.parametrize("size", [4, 6])
def test_correlation_with_a_map_constant_up_to_rounding_of_its_type_is_zero(dtype, size):
    # Two neighboring numbers of the type.
    is_above = np.random.default_rng(0).random((1, 4, 4)) < 0.5
    constant = np.where(is_above, 1, 1 + float(jnp.finfo(dtype).eps)).astype(dtype)
    assert len(np.unique(constant)) == 2
    q = np.random.default_rng(1).random((1, size, size))
    assert agreement.correlation(q, constant) == agreement.correlation(constant, q) == [0]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_correlation_of_half_precision_is_close_to_that_of_float64(dtype):
    q_s, q_t = np.random.default_rng(0).random((2, 3, 8, 8))
    expected = agreement.correlation(q_s, q_t)
    found = agreement.correlation(q_s.astype(dtype), q_t.astype(dtype))
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_functions_of_no_examples_return_no_numbers():
    assert agreement.top1(np.ones((0, 3)), np.ones((0, 3))).shape == (0,)
    assert agreement.divergence(np.ones((0, 3)), np.ones((0, 3))).shape == (0,)
    for size in (2, 3):
        assert agreement.correlation(np.ones((0, 2, 2)), np.ones((0, size, size))).shape == (0,)
    assert agreement.confusion(np.zeros(0, int), np.zeros(0, int), 2).sum() == 0


def test_confusion_of_no_examples_is_zero():
    np.testing.assert_array_equal(agreement.confusion([], [], 2), np.zeros((2, 2)))


def test_confusion_by_hand():
    counts = agreement.confusion(np.array([0, 2, 2, 2]), np.array([0, 1, 2, 1]), 3)
    np.testing.assert_array_equal(counts, [[1, 0, 0], [0, 0, 0], [0, 2, 1]])


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([-1, 0], [0, 0], "labels must be integers from 0 to 2, got -1 to 0: leave out"),
        ([0, 0], [0, 3], "predictions must be integers from 0 to 2, got 0 to 3"),
        ([0.0, 1.0], [0, 1], "labels must be integers from 0 to 2, got float64"),
        ([0, 1], [[0], [1]], r"predictions must have rank 1, got shape \(2, 1\)"),
        ([0, 1, 1], [0], "numbers of labels and predictions must be equal, got 3 and 1"),
    ],
)
def test_confusion_of_bad_classes_raises_user_error(labels, predictions, message):
    with pytest.raises(UserError, match=f"confusion: {message}"):
        agreement.confusion(np.array(labels), np.array(predictions), 3)


@pytest.mark.parametrize("num_classes", [0, -1, 2.0, True, "2", None])
def test_confusion_of_a_bad_number_of_classes_raises_user_error(num_classes):
    message = f"num_classes must be a whole number of at least 1, got {num_classes!r}: pass"
    for classes in (np.zeros(2, int), np.zeros(0, int)):
        with pytest.raises(UserError, match=f"^confusion: {message}"):
            agreement.confusion(classes, classes, num_classes)


def test_confusion_of_a_numpy_number_of_classes_is_that_of_the_number():
    assert agreement.confusion(np.array([0]), np.array([1]), np.int64(2)).shape == (2, 2)


@pytest.mark.parametrize(
    ("function", "shapes", "message"),
    [
        (
            agreement.top1,
            ((2, 3), (2, 4)),
            "shapes of logits_s and logits_t must be equal, got (2, 3) and (2, 4): apply both",
        ),
        (agreement.divergence, ((3,), (3,)), "logits_s must have rank 2, got shape (3,)"),
        (agreement.divergence, ((2, 3), (3,)), "logits_t must have rank 2, got shape (3,)"),
        (agreement.top1, ((2, 0), (2, 0)), "logits_s must have at least one number per example"),
        (agreement.divergence, ((2, 0), (2, 0)), "logits_s must have at least one number per"),
        # The shapes that were passed, not those after resizing.
        (
            agreement.correlation,
            ((2, 4, 4), (3, 8, 8)),
            "batch sizes of q_s and q_t must be equal, got 2 and 3: compute both from the same",
        ),
        (agreement.correlation, ((2, 4), (2, 4)), "q_s must have rank 3, got shape (2, 4)"),
        (agreement.correlation, ((2, 4, 4), (2, 4)), "q_t must have rank 3, got shape (2, 4)"),
        (agreement.correlation, ((2, 0, 4), (2, 4, 4)), "q_s must have at least one number per"),
    ],
)
def test_functions_of_bad_shapes_raise_user_error(function, shapes, message):
    with pytest.raises(UserError, match=f"^{function.__name__}: {re.escape(message)}"):
        function(*map(np.ones, shapes))
