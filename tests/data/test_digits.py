"""The digits bundled with scikit-learn."""

import importlib.util

import numpy as np
import pytest

from at_jax.data import channel_statistics, load
from at_jax.errors import UserError


def test_digits_have_a_fixed_split():
    dataset = load("digits")
    assert dataset.image_shape == (16, 16, 1) and dataset.num_classes == 10
    assert (len(dataset.train), len(dataset.test)) == (1442, 355)
    assert dataset.train.images.dtype == np.uint8 and dataset.train.labels.dtype == np.int32
    # 174 to 183 images a class, of which every fifth is a test image.
    assert set(np.bincount(dataset.test.labels)) <= {34, 35, 36}
    assert (dataset.mean, dataset.std) == channel_statistics(dataset.train)
    again = load("digits", name="digits")
    assert np.array_equal(again.test.images, dataset.test.images)


def test_digits_at_their_original_size_keep_their_pixels():
    dataset = load("digits", image_size=8)
    assert dataset.image_shape == (8, 8, 1)
    assert dataset.train.images.max() == 255  # 16 of 16
    # The file's first image is a zero; its first row is 0 0 5 13 9 1 0 0, times 255 / 16.
    assert dataset.train.labels[0] == 0
    assert dataset.train.images[0, 0, :, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]


def test_digits_with_the_name_of_another_set_raise():
    with pytest.raises(UserError, match="expected no name, got 'cifar10'"):
        load("digits", name="cifar10")


def test_digits_without_scikit_learn_raise(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r'needs sklearn, which is not installed: pip install "at_jax\[train\]"'
    ):
        load("digits")
