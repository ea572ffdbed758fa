"""What every source returns: two splits of labelled images, and the choices made from them.

A choice (which images are held out, which keep their labels) is a function of the seed alone, so the
run that trains the teacher and the run that trains the student agree without telling each other.
"""

import dataclasses
import zlib
from typing import Protocol

import numpy as np

# The last number of a generator's seed keeps the choices independent of each other.
_HOLD_OUT, _FEW_LABELS = 1, 2
# Lazy splits are summarised from this many images: decoding a million to learn two numbers a channel
# would take longer than an epoch, and 10,000 give the mean to about a hundredth of a grey level.
_STATISTICS_EXAMPLES = 10_000


class Images(Protocol):
    """Images that are decoded when taken; `numpy.ndarray` stands for those already in memory."""

    shape: tuple[int, int, int, int]

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Returns the images at `indices`, uint8 (n, H, W, C)."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Chosen:
    """A choice among lazy images."""

    images: Images
    indices: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.indices), *self.images.shape[1:])

    def take(self, indices: np.ndarray) -> np.ndarray:
        return self.images.take(self.indices[indices])


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Labelled images.

    Attributes:
      images: uint8 (N, H, W, C) in memory, or an object with that `.shape` whose `.take(indices)`
        decodes on the way.
      labels: int32 (N,), a class index each.

    >>> split = Split(np.zeros((3, 8, 8, 1), np.uint8), np.array([0, 1, 2], np.int32))
    >>> len(split), split.select(np.array([2])).labels.tolist()
    (3, [2])
    """

    images: np.ndarray | Images
    labels: np.ndarray

    def __post_init__(self):
        if len(self.images.shape) != 4 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"split: expected images (N, H, W, C) and labels (N,), got images "
                f"{tuple(self.images.shape)} and labels {self.labels.shape}: give one label an image"
            )
        if self.labels.dtype != np.int32 or getattr(self.images, "dtype", np.uint8) != np.uint8:
            raise ValueError(
                f"split: expected uint8 images and int32 labels, got {self.images.dtype} and "
                f"{self.labels.dtype}: convert them with .astype"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the examples at `indices` (n,): uint8 (n, H, W, C) and int32 (n,)."""
        if isinstance(self.images, np.ndarray):
            return self.images[indices], self.labels[indices]
        return self.images.take(indices), self.labels[indices]

    def select(self, indices: np.ndarray) -> "Split":
        """Returns the split made of the examples at `indices` (n,), in that order."""
        if isinstance(self.images, np.ndarray):
            return Split(*self.take(indices))
        return Split(_Chosen(self.images, np.asarray(indices)), self.labels[indices])


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A training split, the split that is evaluated, and what normalisation needs.

    Attributes:
      name: For tables and messages.
      train: Training examples.
      test: Examples that are evaluated, of the same (H, W, C).
      class_names: K names; a label is an index into them.
      mean: C numbers in 0..255 units, of the whole training split as loaded.
      std: C numbers in 0..255 units, of the same.
      evaluated_on: "test", or "validation" after `hold_out`.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    evaluated_on: str = "test"

    def summary(self) -> dict[str, object]:
        """What tells whether two machines have the same data: sizes, labels, statistics."""
        return {
            "image shape": self.image_shape,
            "class names": self.class_names,
            # To a thousandth of a grey level: they are sums of many numbers.
            "mean and std": [round(float(x), 3) for x in (*self.mean, *self.std)],
            **{
                f"{kind} images and labels": (len(split), zlib.crc32(split.labels.tobytes()))
                for kind, split in (("training", self.train), ("test", self.test))
            },
        }

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) in pixels and channels."""
        return tuple(self.train.images.shape[1:])


def channel_statistics(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation per channel, in 0..255 units.

    Images in memory are all counted, lazy ones at most 10,000 evenly spaced. A constant channel has
    the standard deviation 1, so that normalising it gives zeros.

    Args:
      split: The training split, N > 0.

    Returns:
      (mean, std), C floats each.

    >>> channel_statistics(Split(np.full((2, 1, 1, 1), 7, np.uint8), np.zeros(2, np.int32)))
    ((7.0,), (1.0,))
    """
    examples, channels = len(split), split.images.shape[-1]
    if not isinstance(split.images, np.ndarray):
        examples = min(examples, _STATISTICS_EXAMPLES)
    indices = np.linspace(0, len(split) - 1, examples).astype(np.int64)
    count, total, squares = 0, np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for start in range(0, examples, 1024):  # bounds the memory of the widened copies
        pixels = split.take(indices[start : start + 1024])[0].reshape(-1, channels)
        count += len(pixels)
        total += pixels.sum(axis=0, dtype=np.int64)
        # 255^2 fits uint16, so the sums are exact integers.
        squares += np.square(pixels, dtype=np.uint16).sum(axis=0, dtype=np.int64)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def hold_out(dataset: Dataset, examples: int, seed: int) -> Dataset:
    """Sets `examples` class-balanced training images apart as the split that is evaluated.

    The test split is not looked at, so weights may be chosen on the result. Mean and standard
    deviation stay those of the whole training split: they use no labels.

    Args:
      dataset: With N training images of K classes.
      examples: How many to hold out, K <= examples < N.
      seed: Not negative; the choice depends on it alone.

    Returns:
      A dataset with N - examples training images and `evaluated_on="validation"`.

    Raises:
      ValueError: `examples` or `seed` is out of range.
    """
    if examples == len(dataset.train):
        raise ValueError(
            f"hold-out from {dataset.name!r}: expected fewer than its {len(dataset.train)} training "
            f"images, got {examples}: nothing would be left to train on; hold fewer out"
        )
    held = _balanced(dataset, examples, seed, _HOLD_OUT, "hold-out from")
    kept = np.setdiff1d(np.arange(len(dataset.train)), held)
    return dataclasses.replace(
        dataset,
        train=dataset.train.select(kept),
        test=dataset.train.select(held),
        evaluated_on="validation",
    )


def few_labels(dataset: Dataset, examples: int, seed: int) -> Dataset:
    """Keeps a class-balanced choice of `examples` training images.

    Class counts differ by at most 1, as far as the classes have that many images. With one seed, a
    smaller choice is a part of a larger one. Mean and standard deviation stay those of the whole
    training split: they use no labels, and student and teacher must share them.

    Args:
      dataset: With N training images of K classes.
      examples: How many to keep, K <= examples <= N; 0 keeps all.
      seed: Not negative; the choice depends on it alone.

    Returns:
      A dataset with `examples` training images, in the order they had.

    Raises:
      ValueError: `examples` or `seed` is out of range.
    """
    if examples == 0:
        return dataset
    kept = _balanced(dataset, examples, seed, _FEW_LABELS, "few labels of")
    return dataclasses.replace(dataset, train=dataset.train.select(kept))


def _balanced(dataset: Dataset, examples: int, seed: int, purpose: int, what: str) -> np.ndarray:
    """Returns the ascending indices (examples,) of a class-balanced choice of training images."""
    labels, available = dataset.train.labels, len(dataset.train)
    if not dataset.num_classes <= examples <= available:
        raise ValueError(
            f"{what} {dataset.name!r}: expected from {dataset.num_classes} (one image a class) to "
            f"{available} (all training images), got {examples}: choose a number in that range"
        )
    if seed < 0:
        raise ValueError(
            f"{what} {dataset.name!r}: expected a seed of 0 or more, got {seed}: use 0"
        )
    rng = np.random.default_rng((seed, purpose))
    order = rng.permutation(available)
    # rank[i]: how many of its class come before example i in the shuffled order. Taking the lowest
    # ranks first fills all classes evenly; the class's own random place breaks ties.
    rank = np.empty(available, np.int64)
    for label in range(dataset.num_classes):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    place = rng.permutation(dataset.num_classes)
    return np.sort(np.lexsort((place[labels], rank))[:examples])
