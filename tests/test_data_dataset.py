"""Splits, and the choices made from a data set."""

import numpy as np
import pytest

from at_jax.data import Dataset, Split, few_labels, hold_out
from at_jax.data.dataset import channel_statistics


class Lazy:
    """The same images as an array, but decoded when taken."""

    def __init__(self, images):
        self._images, self.shape = images, images.shape

    def take(self, indices):
        return self._images[indices]


def make(counts=(10, 10, 10), lazy=False):
    """A data set whose image i is filled with the number i."""
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    labels = np.random.default_rng(5).permutation(labels)
    images = np.broadcast_to(
        np.arange(len(labels), dtype=np.uint8)[:, None, None, None], (len(labels), 2, 2, 1)
    ).copy()
    split = Split(Lazy(images) if lazy else images, labels)
    test = Split(np.zeros((4, 2, 2, 1), np.uint8), np.zeros(4, np.int32))
    names = tuple(f"class {k}" for k in range(len(counts)))
    return Dataset("made", split, test, names, *channel_statistics(split))


def ids(split):
    return split.take(np.arange(len(split)))[0][:, 0, 0, 0].tolist()


@pytest.mark.parametrize("lazy", [False, True])
def test_split_takes_and_selects(lazy):
    split = make(lazy=lazy).train
    images, labels = split.take(np.array([7, 3]))
    assert images.shape == (2, 2, 2, 1) and images.dtype == np.uint8
    assert images[:, 0, 0, 0].tolist() == [7, 3]
    assert labels.tolist() == split.labels[[7, 3]].tolist()
    twice = split.select(np.array([9, 4, 2])).select(np.array([2, 0]))
    assert ids(twice) == [2, 9] and twice.images.shape == (2, 2, 2, 1) and len(twice) == 2


def test_split_refuses_what_does_not_fit():
    images = np.zeros((3, 2, 2, 1), np.uint8)
    with pytest.raises(ValueError, match=r"got images \(3, 2, 2, 1\) and labels \(2,\)"):
        Split(images, np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="expected uint8 images and int32 labels, got float32"):
        Split(images.astype(np.float32), np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="got uint8 and int64"):
        Split(images, np.zeros(3, np.int64))


def test_dataset_properties():
    dataset = make()
    assert dataset.num_classes == 3 and dataset.image_shape == (2, 2, 1)
    assert dataset.evaluated_on == "test"


def test_statistics_equal_numpy_and_survive_a_constant_channel():
    images = np.random.default_rng(0).integers(0, 256, (1500, 3, 5, 3), np.uint8)
    images[..., 1] = 9
    mean, std = channel_statistics(Split(images, np.zeros(1500, np.int32)))
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)), rtol=1e-12)
    expected = images.astype(np.float64).std(axis=(0, 1, 2))
    np.testing.assert_allclose(std, [expected[0], 1.0, expected[2]], rtol=1e-10)


def test_statistics_of_a_lazy_split_read_evenly_spaced_images(monkeypatch):
    monkeypatch.setattr("at_jax.data.dataset._STATISTICS_EXAMPLES", 3)
    mean, _ = channel_statistics(make(lazy=True).train)
    assert mean == (43 / 3,)  # of 30 images 0, 14 (14.5 rounded down) and 29
    monkeypatch.setattr("at_jax.data.dataset._STATISTICS_EXAMPLES", 10_000)
    assert channel_statistics(make(lazy=True).train) == channel_statistics(make().train)


@pytest.mark.parametrize("lazy", [False, True])
def test_hold_out_parts_the_training_images(lazy):
    dataset = make(lazy=lazy)
    held = hold_out(dataset, 6, seed=1)
    assert held.evaluated_on == "validation" and len(held.train) == 24 and len(held.test) == 6
    assert sorted(ids(held.train) + ids(held.test)) == list(range(30))
    assert np.bincount(held.test.labels).tolist() == [2, 2, 2]
    assert (held.mean, held.std) == (dataset.mean, dataset.std)
    # An image keeps its own label.
    assert held.test.labels.tolist() == dataset.train.labels[ids(held.test)].tolist()


def test_choices_depend_on_the_seed_alone_and_on_their_purpose():
    dataset = make()
    assert ids(few_labels(dataset, 6, 1).train) == ids(few_labels(dataset, 6, 1).train)
    assert ids(few_labels(dataset, 6, 1).train) != ids(few_labels(dataset, 6, 2).train)
    assert ids(few_labels(dataset, 6, 1).train) != ids(hold_out(dataset, 6, 1).test)


@pytest.mark.parametrize(
    ("counts", "examples", "expected"),
    [
        ((10, 10, 10), 9, [3, 3, 3]),
        ((10, 10, 10), 11, [3, 4, 4]),  # one class, chosen by the seed, has one less
        ((2, 10, 10), 12, [2, 5, 5]),  # the first class has no more
        ((2, 10, 10), 22, [2, 10, 10]),
    ],
)
def test_few_labels_are_balanced(counts, examples, expected):
    dataset = make(counts)
    for seed in range(5):
        few = few_labels(dataset, examples, seed)
        assert sorted(np.bincount(few.train.labels).tolist()) == sorted(expected)
        assert (few.mean, few.std, few.test) == (dataset.mean, dataset.std, dataset.test)


def test_a_smaller_choice_is_part_of_a_larger_one_and_zero_keeps_all():
    dataset = make()
    small, large = few_labels(dataset, 7, 3), few_labels(dataset, 20, 3)
    assert set(ids(small.train)) < set(ids(large.train))
    assert few_labels(dataset, 0, 3) is dataset


@pytest.mark.parametrize(
    ("choose", "examples", "seed", "match"),
    [
        (few_labels, 31, 0, r"few labels of 'made': expected from 3 .* to 30 .*, got 31"),
        (few_labels, 2, 0, "got 2"),
        (few_labels, -1, 0, "got -1"),
        (few_labels, 6, -1, "expected a seed of 0 or more, got -1"),
        (hold_out, 30, 0, "nothing would be left to train on"),
        (hold_out, 31, 0, "hold-out from 'made': .* got 31"),
        (hold_out, 0, 0, "got 0"),
    ],
)
def test_impossible_choices(choose, examples, seed, match):
    with pytest.raises(ValueError, match=match):
        choose(make(), examples, seed)
