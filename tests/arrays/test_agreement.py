"""Agreement of two networks in predictions and maps, by hand."""

import numpy as np
import pytest

from at_jax import agreement
from at_jax.errors import UserError


def test_top1_by_hand():
    # Predicted classes: student 1, 0, 2; teacher 1, 2, 2. They agree on the first and the last.
    student = np.array([[0, 5, 1], [3, 0, 2], [0, 0, 9]])
    teacher = np.array([[1, 2, 0], [0, 1, 4], [2, 1, 3]])
    np.testing.assert_array_equal(agreement.top1(student, teacher), [1, 0, 1])


def test_divergence_by_hand():
    # Teacher (3/4, 1/4), student (1/2, 1/2):
    # 3/4 log((3/4)/(1/2)) + 1/4 log((1/4)/(1/2)) = 3/4 log 3/2 - 1/4 log 2 = 0.304099 - 0.173287
    student, teacher = np.log([[0.5, 0.5]]), np.log([[0.75, 0.25]])
    assert agreement.divergence(student, teacher) == pytest.approx([0.130812], abs=1e-6)
    # Teacher and student exchanged: 1/2 log((1/2)/(3/4)) + 1/2 log((1/2)/(1/4)) = (log 2/3 + log 2) / 2
    assert agreement.divergence(teacher, student) == pytest.approx([np.log(4 / 3) / 2])
    # A constant added to the logits changes nothing, however large.
    assert agreement.divergence(student + 1e4, teacher) == pytest.approx([0.130812], abs=1e-6)


def test_correlation_by_hand():
    # a = 1, 2, 3, 4 is -3/2, -1/2, 1/2, 3/2 about its mean; the squares sum to 5.
    # b = 2, 1, 4, 3 is -1/2, -3/2, 3/2, 1/2, also 5. Products: 3/4 + 3/4 + 3/4 + 3/4 = 3. So 3/5.
    a, b = np.array([[[1, 2], [3, 4]]]), np.array([[[2, 1], [4, 3]]])
    assert agreement.correlation(a, b) == pytest.approx([0.6])
    # Independent of scale and offset, also where squares leave the range.
    assert agreement.correlation(1e-200 * a, 7.0 * b + 5) == pytest.approx([0.6])


def test_correlation_with_a_constant_map_is_zero():
    q = np.arange(6.0).reshape(1, 2, 3)
    for constant in (np.zeros_like(q), np.full_like(q, 0.1)):
        assert agreement.correlation(q, constant) == pytest.approx([0])


def test_correlation_of_different_sizes_resizes_the_teacher_map():
    # Columns 0, 0, 1, 1 shrink to a dark and a bright one: up to scale and offset, the 2x2 map of 0 and 1.
    teacher = np.repeat(np.array([[0.0, 0.0, 1.0, 1.0]]), 4, axis=0)[None]
    student = np.array([[[0.0, 1.0], [0.0, 1.0]]])
    assert agreement.correlation(student, teacher) == pytest.approx([1])


def test_confusion_by_hand():
    counts = agreement.confusion(np.array([0, 2, 2, 2]), np.array([0, 1, 2, 1]), 3)
    np.testing.assert_array_equal(counts, [[1, 0, 0], [0, 0, 0], [0, 2, 1]])


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (agreement.top1, ((2, 3), (2, 4))),
        (agreement.divergence, ((3,), (3,))),
        (agreement.correlation, ((1, 2, 2), (2, 2, 2))),
        (agreement.correlation, ((2, 4), (2, 4))),
    ],
)
def test_functions_of_bad_shapes_raise_user_error(function, shapes):
    message = f"{function.__name__}: student and teacher arrays must have rank . and the same shape"
    with pytest.raises(UserError, match=message):
        function(*map(np.ones, shapes))
