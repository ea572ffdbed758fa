"""Data sets from NumPy arrays or from user-defined sources."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from at_jax.data.checks import (
    RENUMBER,
    check_class_names,
    check_image,
    check_labels,
    numbered_class_names,
)
from at_jax.data.crops import Crop, crop_array
from at_jax.data.dataset import Dataset, Split, channel_statistics
from at_jax.data.decoding import Examples, assemble
from at_jax.errors import UserError, listed, one_line, printable

__all__ = ["Source", "from_arrays", "from_source"]


class Source(Protocol):
    """Random access to (image, label) pairs, for example a list, or a data source of Grain."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def __getitem__(self, index: int, /) -> Any:
        """Return the pair (image, label) at `index`."""


def from_arrays(
    images: Any,
    labels: Any,
    test_images: Any,
    test_labels: Any,
    *,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
) -> Dataset:
    """Build a data set from arrays. The images are not copied.

    Args:
      images: training images, uint8 ``(N, H, W, C)``, or ``(N, H, W)`` for one channel; anything that
        ``numpy.asarray`` accepts.
      labels: integers ``(N,)``, class indices from 0.
      test_images: images for evaluation, of the same (H, W, C).
      test_labels: their labels.
      class_names: K names, indexed by the labels; None means "0" to "K-1", where K - 1 is the largest
        label of both splits.
      name: name in tables and messages.

    Returns:
      The data set. Mean and standard deviation are those of the training images.

    Raises:
      UserError: if a shape or dtype differs from these, or a label has no name.

    >>> images = np.zeros((6, 8, 8, 3), np.uint8)
    >>> dataset = from_arrays(images, [0, 1, 2, 0, 1, 2], images[:3], [2, 1, 0])
    >>> len(dataset.train), len(dataset.test), dataset.image_shape, dataset.class_names
    (6, 3, (8, 8, 3), ('0', '1', '2'))
    """
    train_images, train_labels = _arrays(images, labels, "")
    test_images, test_labels = _arrays(test_images, test_labels, "test_")
    if train_images.shape[1:] != test_images.shape[1:]:
        raise UserError(
            f"data set {name!r}: expected training and test images of one shape, got "
            f"{train_images.shape[1:]} and {test_images.shape[1:]}: resize them to the same (H, W, C)"
        )
    notes: tuple[str, ...] = ()
    if class_names is None:
        class_names = numbered_class_names(name, train_labels, test_labels)
        if unused := sorted({*range(len(class_names))} - {*train_labels.tolist()}):
            notes = (
                f"no training images have these labels: {listed(unused)}. If labels start at 1 or have "
                f"gaps, {RENUMBER}",
            )
    names = check_class_names(name, class_names)
    check_labels("from_arrays: labels", train_labels, names)
    check_labels("from_arrays: test_labels", test_labels, names)
    train = Split(train_images, train_labels.astype(np.int32))
    test = Split(test_images, test_labels.astype(np.int32))
    mean, std = channel_statistics(train)
    return Dataset(name, train, test, names, mean, std, notes=notes)


def _arrays(images: Any, labels: Any, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Check the arrays of one split: uint8 (N, H, W, C) and integers (N,)."""
    images_name, labels_name = f"from_arrays: {prefix}images", f"from_arrays: {prefix}labels"
    images = _asarray(images, images_name, "images of one size, uint8 (N, H, W, C)")
    labels = _asarray(labels, labels_name, "integers (N,)")
    if images.ndim not in (3, 4):
        raise UserError(
            f"{images_name}: expected shape (N, H, W, C) or (N, H, W), got {images.shape}: reshape it, "
            "or add the first axis with [None] if it is a single image"
        )
    if len(images) == 0:
        raise UserError(f"{images_name}: expected at least one image, got none: add images")
    images = check_image(images, images.shape[1:], images_name)
    if labels.ndim != 1:
        raise UserError(
            f"{labels_name}: expected shape (N,), got {labels.shape}: use .reshape(-1) for a column of "
            "labels, or .argmax(axis=-1) for one-hot labels"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{labels_name}: expected integers (class indices), got {labels.dtype}: {RENUMBER}, and "
            "pass class_names=[str(name) for name in names]"
        )
    if len(labels) != len(images):
        raise UserError(
            f"{labels_name}: expected one label for each of {len(images)} images, got {len(labels)}: "
            "pass images and labels of the same split"
        )
    return images, labels


def _asarray(values: Any, name: str, expected: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:  # nested sequences of different lengths
        raise UserError(
            f"{name}: expected {expected}, got {type(values).__name__} that is not an array ({error}): "
            "convert it with np.stack"
        ) from error


def from_source(
    train: Source,
    test: Source,
    *,
    class_names: Sequence[str],
    name: str = "source",
    memory_limit_mb: int = 4096,
) -> Dataset:
    """Build a data set from objects with ``__len__`` and ``__getitem__(int) -> (image, label)``.

    Lists of pairs and PyTorch data sets are such objects, as are data sources of Grain, Hugging Face or
    TFDS whose items are pairs. An item is read each time its image is needed, from several threads, and
    must always be the same for an index.

    Args:
      train: training examples. Images are uint8 arrays ``(H, W, C)``, or ``(H, W)`` for one channel, all
        of one size. Labels are integers in 0..K-1.
      test: examples for evaluation.
      class_names: K names, indexed by the labels.
      name: name in tables and messages.
      memory_limit_mb: both splits are held in memory if their images together fit in this many MiB.
        Otherwise images are read with each batch, and every item is read once at the start, for its label.

    Returns:
      The data set. Mean and standard deviation are those of the training images (of 10,000 of them,
      evenly spaced, if they are not held in memory).

    Raises:
      UserError: if an object or an item does not have this form, an item cannot be read, images differ in
        size, or a label is not in 0..K-1.

    >>> pairs = [(np.full((8, 8), 40 * i, np.uint8), i % 2) for i in range(6)]
    >>> dataset = from_source(pairs, pairs[:2], class_names=["even", "odd"])
    >>> len(dataset.train), dataset.image_shape, dataset.train.labels.tolist()
    (6, (8, 8, 1), [0, 1, 0, 1, 0, 1])
    """
    if memory_limit_mb < 0:
        raise UserError(
            f"memory_limit_mb: expected 0 or more MiB, got {memory_limit_mb}: use 0 to read images "
            "with each batch"
        )
    names = check_class_names(name, class_names)
    train_examples = _examples(train, "train", names)
    test_examples = _examples(test, "test", names)
    return assemble(name, train_examples, test_examples, names, memory_limit_mb)


def _examples(source: Source, split: str, names: tuple[str, ...]) -> Examples:
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise UserError(
            f"from_source: {split}: expected an object with __len__ and __getitem__, got "
            f"{type(source).__name__}: pass random access, such as a list of (image, label) pairs"
        )
    if len(source) == 0:
        raise UserError(
            f"from_source: {split}: expected at least one example, got none: add examples"
        )

    def read(indices: np.ndarray, crops: Sequence[Crop] = ()) -> Iterator[tuple[np.ndarray, int]]:
        for place, index in enumerate(indices.tolist()):
            image, label = _read(source, index, f"from_source: {split}[{index}]", names)
            yield crop_array(image, crops[place]) if crops else image, label

    return Examples(
        count=len(source),
        read=read,
        labels=None,
        describe=lambda index: f"{split}[{index}]",
        resize="resize all images to one size in the source",
    )


def _read(
    source: Source, index: int, subject: str, names: tuple[str, ...]
) -> tuple[np.ndarray, int]:
    """Read and check one example."""
    try:
        item = source[index]
    except Exception as error:  # the source is the user's, and may raise anything
        raise UserError(
            f"{subject}: expected an (image, label) pair, got {type(error).__name__} "
            f"({printable(one_line(error))}): fix or remove this example"
        ) from error
    image, label = _pair(item, subject)
    if not (hasattr(image, "dtype") and hasattr(image, "shape")):
        raise UserError(
            f"{subject}: expected the image as an array, got {type(image).__name__}: convert it, for "
            'example a PIL image with np.asarray(image.convert("RGB"))'
        )
    image = np.asarray(image)
    if image.ndim not in (2, 3):
        raise UserError(
            f"{subject}: expected an image (H, W, C) or (H, W), got {image.shape}: return a single image"
        )
    try:
        number = operator.index(label)  # also for arrays and tensors with one integer
    except TypeError as error:
        raise UserError(
            f"{subject}: expected an integer label, got {label!r:.80}: return the index of its class in "
            "class_names"
        ) from error
    check_labels(subject, number, names)
    return check_image(image, image.shape, subject), number


def _pair(item: Any, subject: str) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        raise UserError(
            f"{subject}: expected an (image, label) pair, got a dict with the keys {listed(item)}: pass "
            '[(item["image"], item["label"]) for item in source], or read lazily with '
            'grain.MapDataset.source(source).map(lambda item: (item["image"], item["label"]))'
        )
    if not isinstance(item, tuple | list) or len(item) != 2:
        size = f" of {len(item)} items" if isinstance(item, tuple | list) else ""
        raise UserError(
            f"{subject}: expected an (image, label) pair, got {type(item).__name__}{size}: return "
            "(image, label) from __getitem__"
        )
    return item[0], item[1]
