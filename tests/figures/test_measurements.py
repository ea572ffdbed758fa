"""Measurements of a student on a split."""

import numpy as np
import pytest

from at_jax import data
from at_jax.figures import measurements


class Answers:
    """A network that reads its prediction from the first pixel of an image."""

    def __init__(self, shift, same_classes=True):
        self.shift, self.description, self.same = shift, {"num_classes": 3}, same_classes

    def has_classes_of(self, other):
        return self.same

    def attention(self, pixels):
        predicted = (pixels[:, 0, 0, 0] + self.shift) % 3
        return np.eye(3)[predicted], ({"only": pixels[..., 0].astype(float)},)


def test_measure_counts_every_image_once_and_limits_their_number():
    pixels = np.zeros((7, 2, 2, 1), np.uint8)
    pixels[:, 0, 0, 0] = [0, 1, 2, 0, 1, 2, 0]
    pixels[:, 1, 1, 0] = 9
    split = data.Split(pixels, np.array([0, 1, 2, 0, 1, 2, 1], np.int32))
    found = measurements.measure(Answers(0), Answers(0), split, batch=3)
    # The last one, of class 1, is predicted as class 0.
    np.testing.assert_array_equal(found.confusion, [[2, 0, 0], [1, 2, 0], [0, 0, 2]])
    assert found.agreement.top1 == 1 and found.agreement.divergence == 0
    assert found.agreement.correlation == {"only": pytest.approx(1)}
    other = measurements.measure(Answers(0), Answers(1), split, batch=3)
    assert other.agreement.top1 == 0
    unlike = measurements.measure(Answers(0), Answers(1, same_classes=False), split, batch=3)
    assert (unlike.agreement.top1, unlike.agreement.divergence) == (None, None)
    alone = measurements.measure(Answers(0), None, split, batch=2, most=4)
    assert len(alone.predictions) == 4 and alone.agreement is None
