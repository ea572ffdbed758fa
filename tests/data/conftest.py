"""Images, image folders and data sets that several tests read."""

import numpy as np
import pytest
from PIL import Image
from tfds_sets import shapes_builder

from at_jax import data
from at_jax.data import (
    Dataset,
    Split,
    TrainBatches,
    channel_statistics,
    eval_batches,
    few_labels,
    hold_out,
)


def _picture(level, size=(12, 10), mode="RGB"):
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    noise = np.random.default_rng(level).integers(-30, 30, (size[1], size[0], *channels))
    return Image.fromarray((level + noise).astype(np.uint8))


@pytest.fixture(scope="session")
def picture():
    """Function: gray level, size (width, height) and mode to a noisy PIL image."""
    return _picture


@pytest.fixture
def folder(tmp_path):
    """Image folder with 4 training and 2 test images per class; classes differ by brightness."""
    for split, count in (("train", 4), ("test", 2)):
        for name, level in (("bright", 200), ("dark", 40)):
            directory = tmp_path / "pictures" / split / name
            directory.mkdir(parents=True)
            for i in range(count):
                _picture(level + i).save(directory / f"{i}.{('png', 'jpg', 'JPEG')[i % 3]}")
    return tmp_path / "pictures"


@pytest.fixture
def shapes(tmp_path, folder):
    shapes_builder(tmp_path / "prepared", folder)
    return str(tmp_path / "prepared")


class _Lazy:
    """Images that are decoded when taken."""

    def __init__(self, images):
        self._images, self.shape = images, images.shape

    def take(self, indices):
        return self._images[indices]


def _make_dataset(counts=(10, 10, 10), lazy=False):
    """A data set whose image i is filled with the number i."""
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    labels = np.random.default_rng(5).permutation(labels)
    images = np.broadcast_to(
        np.arange(len(labels), dtype=np.uint8)[:, None, None, None], (len(labels), 2, 2, 1)
    ).copy()
    split = Split(_Lazy(images) if lazy else images, labels)
    test = Split(np.zeros((4, 2, 2, 1), np.uint8), np.zeros(4, np.int32))
    names = tuple(f"class {k}" for k in range(len(counts)))
    return Dataset("made", split, test, names, *channel_statistics(split))


@pytest.fixture(scope="session")
def make_dataset():
    """Function: examples per class to a data set whose image i is filled with the number i."""
    return _make_dataset


def _check_usable(dataset, images, labels):
    """Read a data set of 12 training and 6 test examples in every way that training does."""
    batch = TrainBatches(dataset.train, 4, seed=0).batch(1)
    index = TrainBatches(dataset.train, 4, seed=0).indices(1)
    assert batch["image"].dtype == np.uint8 and batch["label"].dtype == np.int32
    np.testing.assert_array_equal(batch["image"], images[index])
    np.testing.assert_array_equal(batch["label"], labels[index])
    weights = np.concatenate([batch["weight"] for batch in eval_batches(dataset.test, 4)])
    assert weights.tolist() == [1, 1, 1, 1, 1, 1, 0, 0]
    held = hold_out(few_labels(dataset, 9, 0), 3, 0)
    assert (len(held.train), len(held.test), held.evaluated_on) == (6, 3, "validation")
    assert np.bincount(held.test.labels).tolist() == [1, 1, 1]
    held.train.take(np.arange(6))


@pytest.fixture(scope="session")
def check_usable():
    """Function: data set, its training images and labels to assertions."""
    return _check_usable


@pytest.fixture
def photographs(folder):
    """Training batches of a folder, cropped at random."""
    options = {"image_size": 8, "resize": 9, "random_crop": True}
    dataset = data.load("folder", data_dir=str(folder), **options)
    return data.TrainBatches(dataset.train, 4, seed=3, random_crop=True)
