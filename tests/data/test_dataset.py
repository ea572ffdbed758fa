"""Splits, data sets and their statistics."""

import dataclasses

import numpy as np
import pytest

from at_jax.data import Split, channel_statistics
from at_jax.errors import UserError


def ids(split):
    return split.take(np.arange(len(split)))[0][:, 0, 0, 0].tolist()


@pytest.mark.parametrize("lazy", [False, True])
def test_split_take_and_select_return_examples_in_the_given_order(lazy, make_dataset):
    split = make_dataset(lazy=lazy).train
    images, labels = split.take(np.array([7, 3]))
    assert images.shape == (2, 2, 2, 1) and images.dtype == np.uint8
    assert images[:, 0, 0, 0].tolist() == [7, 3]
    assert labels.tolist() == split.labels[[7, 3]].tolist()
    twice = split.select(np.array([9, 4, 2])).select(np.array([2, 0]))
    assert len(split.select([])) == 0 and split.select([]).images.shape == (0, 2, 2, 1)
    assert ids(twice) == [2, 9] and twice.images.shape == (2, 2, 2, 1) and len(twice) == 2


def test_split_with_wrong_shapes_or_dtypes_raises(make_dataset):
    images = np.zeros((3, 2, 2, 1), np.uint8)
    with pytest.raises(UserError, match=r"got images \(3, 2, 2, 1\) and labels \(2,\)"):
        Split(images, np.zeros(2, np.int32))
    with pytest.raises(UserError, match="expected uint8 images and int32 labels, got float32"):
        Split(images.astype(np.float32), np.zeros(3, np.int32))
    with pytest.raises(UserError, match="got uint8 and int64"):
        Split(images, np.zeros(3, np.int64))
    lazy = make_dataset(lazy=True).train  # its images have no dtype
    with pytest.raises(UserError, match="got uint8 and int64"):
        Split(lazy.images, lazy.labels.astype(np.int64))


def test_dataset_has_classes_and_an_image_shape(make_dataset):
    dataset = make_dataset()
    assert dataset.num_classes == 3 and dataset.image_shape == (2, 2, 1)
    assert dataset.evaluated_on == "test"


def test_channel_statistics_equal_numpy_and_give_1_for_a_constant_channel():
    images = np.random.default_rng(0).integers(0, 256, (1500, 3, 5, 3), np.uint8)
    images[..., 1] = 9
    mean, std = channel_statistics(Split(images, np.zeros(1500, np.int32)))
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)), rtol=1e-12)
    expected = images.astype(np.float64).std(axis=(0, 1, 2))
    np.testing.assert_allclose(std, [expected[0], 1.0, expected[2]], rtol=1e-10)


def test_channel_statistics_of_a_lazy_split_use_evenly_spaced_images(monkeypatch, make_dataset):
    monkeypatch.setattr("at_jax.data.dataset._STATISTICS_EXAMPLES", 3)
    mean, _ = channel_statistics(make_dataset(lazy=True).train)
    assert mean == (43 / 3,)  # of 30 images 0, 14 (14.5 rounded down) and 29
    monkeypatch.setattr("at_jax.data.dataset._STATISTICS_EXAMPLES", 10_000)
    assert channel_statistics(make_dataset(lazy=True).train) == channel_statistics(
        make_dataset().train
    )


def test_summary_and_identity_tell_data_sets_apart(make_dataset):
    dataset = make_dataset()
    assert dataset.summary() == make_dataset(lazy=True).summary()
    assert dataset.identity == make_dataset(lazy=True).identity
    others = [
        dataclasses.replace(dataset, class_names=("a", "b", "c")),
        dataclasses.replace(dataset, mean=(dataset.mean[0] + 0.01,)),
        dataclasses.replace(dataset, train=dataset.train.select(np.arange(29, -1, -1))),
        dataclasses.replace(dataset, test=dataset.test.select(np.arange(3))),
    ]
    summaries = {str(each.summary()) for each in (dataset, *others)}
    assert len(summaries) == 5
    # The statistics are no part of the identity: they follow from the images.
    assert len({each.identity for each in (dataset, *others)}) == 4
    # Below a thousandth of a gray level, statistics differ by rounding.
    same = dataclasses.replace(dataset, mean=(dataset.mean[0] + 1e-6,), name="renamed")
    assert same.summary() == dataset.summary() and same.identity == dataset.identity


def test_summary_accepts_numpy_scalars(make_dataset):
    dataset = make_dataset()
    scalars = dataclasses.replace(
        dataset,
        mean=tuple(np.float64(x) for x in dataset.mean),
        class_names=tuple(np.str_(name) for name in dataset.class_names),
    )
    assert scalars.summary() == dataset.summary()
