"""Class-balanced subsets: held-out images and few labels."""

import numpy as np
import pytest

from at_jax.data import few_labels, hold_out
from at_jax.errors import UserError


def ids(split):
    return split.take(np.arange(len(split)))[0][:, 0, 0, 0].tolist()


@pytest.mark.parametrize("lazy", [False, True])
def test_hold_out_divides_the_training_images(lazy, make_dataset):
    dataset = make_dataset(lazy=lazy)
    held = hold_out(dataset, 6, seed=1)
    assert held.evaluated_on == "validation" and len(held.train) == 24 and len(held.test) == 6
    assert sorted(ids(held.train) + ids(held.test)) == list(range(30))
    assert np.bincount(held.test.labels).tolist() == [2, 2, 2]
    assert (held.mean, held.std) == (dataset.mean, dataset.std)
    # An image keeps its own label.
    assert held.test.labels.tolist() == dataset.train.labels[ids(held.test)].tolist()


@pytest.mark.parametrize(
    ("counts", "examples", "expected"),
    [
        ((100, 6), 20, [17, 3]),  # half of the small class, and the others of the large one
        ((100, 6), 54, [50, 4]),  # the large class has given its half, too
        ((100, 6), 104, [99, 5]),  # all but one
        ((100, 3, 1), 10, [9, 1, 0]),
    ],
)
def test_hold_out_takes_at_most_half_of_a_class_if_it_can(counts, examples, expected, make_dataset):
    held = hold_out(make_dataset(counts), examples, seed=0)
    found = np.bincount(held.test.labels, minlength=len(counts)).tolist()
    assert found == expected and sum(found) == examples
    left = np.bincount(held.train.labels, minlength=len(counts))
    assert (left >= 1).all() and (left + found == counts).all()


def test_subsets_depend_on_the_seed_and_the_purpose_alone(make_dataset):
    dataset = make_dataset()
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
def test_few_labels_are_balanced(counts, examples, expected, make_dataset):
    dataset = make_dataset(counts)
    for seed in range(5):
        few = few_labels(dataset, examples, seed)
        assert sorted(np.bincount(few.train.labels).tolist()) == sorted(expected)
        assert (few.mean, few.std, few.test) == (dataset.mean, dataset.std, dataset.test)


def test_few_labels_of_a_smaller_number_are_contained_in_a_larger_one(make_dataset):
    dataset = make_dataset()
    small, large = few_labels(dataset, 7, 3), few_labels(dataset, 20, 3)
    assert set(ids(small.train)) < set(ids(large.train))


def test_few_labels_of_zero_keep_all(make_dataset):
    dataset = make_dataset()
    assert few_labels(dataset, 0, 3) is dataset


@pytest.mark.parametrize(
    ("choose", "examples", "seed", "match"),
    [
        (few_labels, 31, 0, r"few labels of 'made': expected from 3 .* to 30 .*, got 31"),
        (few_labels, 2, 0, "got 2"),
        (few_labels, -1, 0, "got -1"),
        (few_labels, 6, -1, "expected a seed of 0 or more, got -1"),
        (hold_out, 30, 0, r"to 27 \(of its 30 training images, one per class is kept"),
        (hold_out, 31, 0, "hold-out from 'made': .* got 31"),
        (hold_out, 0, 0, "got 0"),
    ],
)
def test_subsets_out_of_range_raise(choose, examples, seed, match, make_dataset):
    with pytest.raises(UserError, match=match):
        choose(make_dataset(), examples, seed)


@pytest.mark.parametrize("seed", range(4))
def test_hold_out_leaves_an_image_of_every_class_to_train_on(seed, make_dataset):
    held = hold_out(make_dataset((20, 1, 10)), 9, seed)
    assert np.bincount(held.train.labels, minlength=3).min() == 1 and len(held.train) == 22
    assert np.bincount(held.test.labels, minlength=3)[1] == 0
    assert held.notes == ("not in the validation images: class 1 (only one image, to train on)",)
    # As many as possible: one of each class is left.
    most = hold_out(make_dataset((20, 1, 10)), 28, seed)
    assert np.bincount(most.train.labels).tolist() == [1, 1, 1]
    with pytest.raises(
        UserError, match=r"expected from 3 .* to 28 \(of its 31 training .*, got 29"
    ):
        hold_out(make_dataset((20, 1, 10)), 29, seed)
