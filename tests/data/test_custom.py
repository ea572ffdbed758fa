"""Data sets from arrays and from user-defined sources."""

import threading

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from at_jax.data import TrainBatches, channel_statistics, from_arrays, from_source
from at_jax.errors import UserError

NAMES = ["cat", "dog", "fox"]


def arrays(count=12, shape=(5, 6, 3), classes=3, seed=0):
    """Random images and balanced labels."""
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)
    return images, np.arange(count) % classes


def pairs(count=12, shape=(5, 6, 3), seed=0):
    images, labels = arrays(count, shape, seed=seed)
    return list(zip(images, labels.tolist(), strict=True))


# ---- from_arrays ----


def test_from_arrays_works_in_all_that_training_does(check_usable):
    (images, labels), test = arrays(), arrays(6, seed=1)
    dataset = from_arrays(images, labels, *test, class_names=NAMES, name="mine")
    assert (dataset.name, dataset.class_names, dataset.image_shape) == (
        "mine",
        tuple(NAMES),
        (5, 6, 3),
    )
    assert (dataset.mean, dataset.std) == channel_statistics(dataset.train)
    assert np.shares_memory(dataset.train.images, images)
    check_usable(dataset, images, labels)


def test_from_arrays_of_labels_with_gaps_notes_the_classes_without_images():
    images = np.zeros((4, 8, 8, 3), np.uint8)
    labels = np.array([1, 2, 1, 2])
    (note,) = from_arrays(images, labels, images, labels).notes
    assert note.startswith("no training images have these labels: 0. If labels start at 1")
    assert from_arrays(images, labels - 1, images, labels - 1).notes == ()
    assert from_arrays(images, labels, images, labels, class_names=list("abc")).notes == ()


def test_from_arrays_of_names_as_labels_works_as_the_message_says():
    (images, _), (test_images, _) = arrays(), arrays(2)
    labels, test_labels = ["c", "a", "b"] * 4, ["c", "b"]
    with pytest.raises(
        UserError, match=r"np\.searchsorted\(names, labels of the split\), where names = "
    ):
        from_arrays(images, labels, test_images, test_labels)
    names = np.unique([*labels, *test_labels])
    numbered = (np.searchsorted(names, each) for each in (labels, test_labels))
    dataset = from_arrays(
        images,
        next(numbered),
        test_images,
        next(numbered),
        class_names=[str(name) for name in names],
    )
    assert [dataset.class_names[k] for k in dataset.train.labels] == labels
    assert [dataset.class_names[k] for k in dataset.test.labels] == test_labels


def test_from_arrays_with_one_channel_adds_its_axis():
    (images, labels), test = arrays(shape=(5, 6)), arrays(6, (5, 6, 1))
    dataset = from_arrays(images, labels, *test)
    assert dataset.image_shape == (5, 6, 1) and dataset.test.images.shape == (6, 5, 6, 1)
    np.testing.assert_array_equal(dataset.train.images[..., 0], images)


def test_from_arrays_without_names_numbers_the_classes_of_both_splits():
    (images, _), (test_images, _) = arrays(), arrays(6)
    dataset = from_arrays(images, [0] * 12, test_images, [0, 0, 0, 0, 3, 1])
    assert dataset.class_names == ("0", "1", "2", "3")


def test_from_arrays_accepts_lists_and_jax_arrays():
    (images, labels), (test_images, test_labels) = arrays(), arrays(6)
    dataset = from_arrays(
        jnp.asarray(images), jnp.asarray(labels), list(test_images), tuple(test_labels)
    )
    np.testing.assert_array_equal(dataset.train.images, images)
    np.testing.assert_array_equal(dataset.test.images, test_images)


IMAGES, LABELS = arrays()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"images": IMAGES / 255}, r"images: expected uint8 .*, got float64: scale to 0\.\.255 and"),
        ({"test_images": IMAGES.astype(np.int64)}, r"test_images: expected uint8 .*, got int64"),
        ({"images": IMAGES[0, 0]}, r"images: expected shape \(N, H, W, C\) or .*, got \(6, 3\)"),
        ({"images": IMAGES[None]}, r"got \(1, 12, 5, 6, 3\)"),
        ({"images": [IMAGES[0], IMAGES[1, :2]]}, r"images of one size, .*, got list that is not an array"),
        ({"images": IMAGES[:, :0]}, r"at least one pixel and one channel, got \(0, 6, 3\)"),
        ({"images": np.zeros((12, 3, 8, 8), np.uint8)}, r"\(3, 8, 8\), channels first: move"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "images: expected at least one image"),
        ({"test_images": IMAGES[:0], "test_labels": []}, "test_images: expected at least one image"),
        ({"test_images": IMAGES[:, 1:]}, r"of one shape, got \(5, 6, 3\) and \(4, 6, 3\)"),
        ({"labels": LABELS[:, None]}, r"labels: expected shape \(N,\), got \(12, 1\): use .reshape"),
        ({"labels": np.eye(3, dtype=int)[LABELS]}, r"got \(12, 3\): .*argmax"),
        ({"labels": LABELS.astype(float)}, "labels: expected integers .*, got float64"),
        ({"labels": LABELS == 1}, "got bool"),
        ({"test_labels": ["cat"] * 12}, "test_labels: expected integers .*pass class_names="),
        ({"labels": LABELS[:-1]}, "one label for each of 12 images, got 11"),
        ({"labels": LABELS - 1}, r"labels\[0\]: expected a label from 0 to 2 .*cat, dog, fox.* got -1"),
        ({"labels": LABELS - 5, "test_labels": LABELS - 5, "class_names": None}, r"0 to 0 .* got -5"),
        ({"test_labels": LABELS + 1}, r"test_labels\[2\]: .* got 3: add the name of its class"),
        ({"class_names": NAMES[:2]}, r"labels\[2\]: expected a label from 0 to 1 .* got 2"),
        ({"labels": LABELS * 100, "class_names": None}, "the label 200 among 24 examples: number those"),
        ({"class_names": "cat"}, "class_names as a list of strings, got 'cat'"),
    ],
)  # fmt: skip
def test_from_arrays_with_wrong_arguments_raises(changes, match):
    arguments = {"images": IMAGES, "labels": LABELS, "test_images": IMAGES, "test_labels": LABELS}
    arguments |= {"class_names": NAMES} | changes
    with pytest.raises(UserError, match=match):
        from_arrays(**arguments)


# ---- from_source ----


class Source:
    """Random access to pairs that counts its reads."""

    def __init__(self, items, fail_at=None):
        self.items, self.fail_at, self.reads = items, fail_at, 0
        self.lock = threading.Lock()

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        assert type(index) is int
        if index == self.fail_at:
            raise OSError("disk is gone")
        with self.lock:
            self.reads += 1
        return self.items[index]


@pytest.mark.parametrize("limit", [4096, 0])
def test_from_source_works_in_all_that_training_does(limit, check_usable):
    dataset = from_source(
        pairs(), pairs(6, seed=1), class_names=NAMES, name="mine", memory_limit_mb=limit
    )
    assert isinstance(dataset.train.images, np.ndarray) == (limit > 0)
    assert (dataset.name, dataset.class_names, dataset.image_shape) == (
        "mine",
        tuple(NAMES),
        (5, 6, 3),
    )
    check_usable(dataset, *arrays())


def test_from_source_lazy_equals_the_one_in_memory_and_from_arrays():
    in_memory = from_source(pairs(), pairs(6), class_names=NAMES)
    lazy = from_source(pairs(), pairs(6), class_names=NAMES, memory_limit_mb=0)
    indices = np.array([7, 2, 2, 0])
    for one, other in zip(lazy.train.take(indices), in_memory.train.take(indices), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert lazy.summary() == in_memory.summary() and lazy.identity == in_memory.identity
    arrays_of_them = from_arrays(*arrays(), *arrays(6), class_names=NAMES)
    assert lazy.summary() == arrays_of_them.summary() and lazy.identity == arrays_of_them.identity


def test_from_source_in_memory_reads_an_item_once_afterwards_never():
    source = Source(pairs())
    dataset = from_source(source, pairs(6), class_names=NAMES)
    assert source.reads == 13  # the first one also for its shape
    TrainBatches(dataset.train, 4, seed=0).batch(0)
    assert source.reads == 13


def test_from_source_with_images_of_rank_2_adds_the_axis_of_the_channel():
    dataset = from_source(pairs(shape=(5, 6)), pairs(6, (5, 6)), class_names=NAMES)
    assert dataset.image_shape == (5, 6, 1)


def test_from_source_accepts_arrays_and_numpy_labels():
    items = [[jnp.asarray(image), np.asarray(label)] for image, label in pairs()]
    dataset = from_source(items, items, class_names=NAMES)
    np.testing.assert_array_equal(dataset.train.images, arrays()[0])


@pytest.mark.parametrize("limit", [4096, 0])
@pytest.mark.parametrize("split", ["train", "test"])
def test_from_source_with_an_item_that_raises_names_its_index(split, limit):
    sources = {"train": pairs(), "test": pairs(6)}
    sources[split] = Source(sources[split], fail_at=4)
    match = rf"{split}\[4\]: expected an \(image, label\) pair, got OSError \(disk is gone\)"
    with pytest.raises(UserError, match=match) as error:
        from_source(**sources, class_names=NAMES, memory_limit_mb=limit)
    assert isinstance(error.value.__cause__, OSError)


def test_from_source_lazy_with_an_item_that_raises_later_names_its_index():
    source = Source(pairs())
    dataset = from_source(source, pairs(6), class_names=NAMES, memory_limit_mb=0)
    source.fail_at = 4
    with pytest.raises(UserError, match=r"train\[4\]: .*disk is gone"):
        dataset.train.take(np.array([1, 4]))


def test_from_source_with_dicts_shows_a_wrapper_that_works():
    items = [{"image": image, "label": label} for image, label in pairs()]
    with pytest.raises(UserError, match=r"got a dict with the keys image, label: pass \[") as error:
        from_source(items, items, class_names=NAMES)
    message = str(error.value)
    wrapper = message[message.index("pass [") + 5 : message.index(", or read lazily")]
    wrapped = eval(wrapper, {"source": items})
    np.testing.assert_array_equal(
        from_source(wrapped, wrapped, class_names=NAMES).train.images, arrays()[0]
    )


IMAGE = arrays()[0][0]


@pytest.mark.parametrize("limit", [4096, 0])
@pytest.mark.parametrize(
    ("item", "match"),
    [
        (IMAGE, "pair, got ndarray: return"),
        ((IMAGE, 0, 0), "pair, got tuple of 3 items"),
        ((IMAGE.astype(np.float32), 0), r"uint8 in 0\.\.255, got float32: scale"),
        ((IMAGE[None], 0), r"expected an image \(H, W, C\) or \(H, W\), got \(1, 5, 6, 3\)"),
        ((Image.fromarray(IMAGE), 0), r"image as an array, got Image: .*np\.asarray"),
        ((IMAGE.tolist(), 0), "image as an array, got list"),
        ((np.zeros((3, 8, 8), np.uint8), 0), "channels first"),
        ((IMAGE, "cat"), "expected an integer label, got 'cat'"),
        ((IMAGE, 1.0), r"expected an integer label, got 1\.0"),
        ((IMAGE, np.eye(3)[0]), "expected an integer label, got array"),
        ((IMAGE, 3), r"label from 0 to 2 \(classes cat, dog, fox\), got 3"),
        ((IMAGE, -1), "got -1"),
        ((IMAGE, 2**40), "got 1099511627776"),
        ((IMAGE[:4], 0), r"expected 5x6x3 .* as in train\[0\], got 4x6x3 .* in the source"),
    ],
)
def test_from_source_with_a_wrong_item_names_its_index(item, match, limit):
    items = [*pairs(3), item, *pairs(3)]
    with pytest.raises(UserError, match=rf"train\[3\]: .*{match}"):
        from_source(items, pairs(6), class_names=NAMES, memory_limit_mb=limit)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"train": iter(pairs())}, "train: expected an object with __len__ .*, got list_iterator"),
        ({"test": None}, "test: expected an object with __len__ .*, got NoneType"),
        ({"test": []}, "test: expected at least one example, got none"),
        (
            {"test": pairs(6, (5, 5, 3))},
            r"one size, got 5x6x3 .* and 5x5x3 .*\(test\[0\]\): resize",
        ),
        ({"class_names": "cat"}, "class_names as a list of strings, got 'cat'"),
        ({"memory_limit_mb": -1}, "memory_limit_mb: expected 0 or more MiB, got -1"),
    ],
)
def test_from_source_with_wrong_arguments_raises(changes, match):
    arguments = {"train": pairs(), "test": pairs(6), "class_names": NAMES} | changes
    with pytest.raises(UserError, match=match):
        from_source(**arguments)
