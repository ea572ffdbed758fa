"""Data sets: two splits of labeled images, and their statistics."""

import dataclasses
import functools
import math
import zlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from at_jax.data.crops import Crop, crop_array
from at_jax.data.identity import Identity, identify
from at_jax.data.memory import check_fits
from at_jax.errors import UserError

__all__ = ["Dataset", "Images", "Split", "channel_statistics", "examples_at_once", "take_images"]

# Number of images that the statistics of a lazy split are computed from. Decoding a million images for
# two numbers per channel would take longer than an epoch, and 10,000 give the mean to about a
# hundredth of a gray level.
_STATISTICS_EXAMPLES = 10_000


class Images(Protocol):
    """Images that are decoded when taken, in place of a ``numpy.ndarray`` in memory."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(N, H, W, C)``."""

    def take(self, indices: np.ndarray, crops: Sequence[Crop] = ()) -> np.ndarray:
        """Return the images at `indices` ``(n,)``, uint8 ``(n, H, W, C)``.

        With n crops, which only a random crop passes, these parts of them.
        """


def take_images(
    images: "np.ndarray | Images", indices: np.ndarray, crops: Sequence[Crop] = ()
) -> np.ndarray:
    """Return images, or crops of them, at `indices` ``(n,)``.

    Args:
      images: uint8 ``(N, H, W, C)`` in memory, or images that are decoded when taken.
      indices: of the images.
      crops: one for each; without any, the images as they are evaluated.

    Returns:
      uint8 ``(n, H, W, C)``.
    """
    if not isinstance(images, np.ndarray):
        return images.take(indices, crops) if crops else images.take(indices)
    taken = images[indices]
    for place, crop in enumerate(crops):
        taken[place] = crop_array(taken[place], crop)
    return taken


@dataclasses.dataclass(frozen=True, eq=False)
class _Subset:
    """A subset of lazy images that cannot select one themselves."""

    images: Images
    indices: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.indices), *self.images.shape[1:])

    def take(self, indices: np.ndarray, crops: Sequence[Crop] = ()) -> np.ndarray:
        return take_images(self.images, self.indices[indices], crops)


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Labeled images.

    Attributes:
      images: uint8 ``(N, H, W, C)`` in memory, or an object with that ``shape`` whose
        ``take(indices)`` decodes them.
      labels: int32 ``(N,)``, class indices.

    Raises:
      UserError: if a shape or dtype differs from these.

    >>> split = Split(np.zeros((3, 8, 8, 1), np.uint8), np.array([0, 1, 2], np.int32))
    >>> len(split), split.select(np.array([2])).labels.tolist()
    (3, [2])
    """

    images: np.ndarray | Images
    labels: np.ndarray

    def __post_init__(self) -> None:
        if len(self.images.shape) != 4 or self.labels.shape != self.images.shape[:1]:
            raise UserError(
                f"Split: expected images (N, H, W, C) and labels (N,), got images "
                f"{tuple(self.images.shape)} and labels {self.labels.shape}: pass one label per image"
            )
        dtype = np.dtype(getattr(self.images, "dtype", np.uint8))  # lazy images need not have one
        if self.labels.dtype != np.int32 or dtype != np.uint8:
            raise UserError(
                f"Split: expected uint8 images and int32 labels, got {dtype} and "
                f"{self.labels.dtype}: convert them with .astype"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the examples at `indices` ``(n,)``: uint8 ``(n, H, W, C)`` and int32 ``(n,)``."""
        return take_images(self.images, indices), self.labels[indices]

    def select(self, indices: np.ndarray) -> "Split":
        """Return a split of the examples at `indices` ``(n,)``, in that order.

        Images in memory are copied.

        Raises:
          UserError: if the copy does not fit into memory.
        """
        indices = np.asarray(indices, np.int64)
        if isinstance(self.images, np.ndarray):
            check_fits(
                f"memory for a copy of {len(indices):,} images {self.images.shape[1:]}",
                len(indices) * math.prod(self.images.shape[1:]),
                "read images during training (a smaller memory_limit_mb)",
            )
            return Split(*self.take(indices))
        select = getattr(self.images, "select", None)
        chosen = _Subset(self.images, indices) if select is None else select(indices)
        return Split(chosen, self.labels[indices])


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A training split, an evaluation split, and the statistics for normalization.

    Attributes:
      name: name in tables and messages.
      train: training examples.
      test: examples for evaluation, with images of the same (H, W, C).
      class_names: K names, indexed by the labels.
      mean: C numbers in 0..255 units, over the whole training split as loaded.
      std: C numbers in 0..255 units, over the same.
      evaluated_on: "test", or "validation" after :func:`at_jax.data.hold_out`.
      origin: identity of the images as loaded; None computes it from ``train`` and ``test``.
      bit_depth: bits of the values in its 16-bit image files, 8 to 16; see
        :func:`at_jax.data.files.reading.read_image`.
      resize: pixels of the shorter side before the center of an image is cropped for evaluation; 0: those
        of the crop.
      notes: lines to print: files that were skipped, and the like.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    evaluated_on: str = "test"
    origin: Identity | None = None
    bit_depth: int = 16
    resize: int = 0
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def identity(self) -> Identity:
        """Classes and images of the data set as it was loaded; without an origin of 64 images a split."""
        if self.origin is not None:
            return self.origin
        train, test = (
            identify(split.labels, images=split.take(_evenly_spaced(len(split), 64))[0])
            for split in (self.train, self.test)
        )
        return Identity(self.class_names, train, test)

    def summary(self) -> dict[str, object]:
        """Return sizes, labels and statistics: equal on two machines that have the same data."""
        return {
            "image shape": self.image_shape,
            "class names": self.class_names,
            # To a thousandth of a gray level: they are sums of many numbers.
            "mean and std": [round(float(x), 3) for x in (*self.mean, *self.std)],
            **{
                f"{kind} images and labels": (len(split), zlib.crc32(split.labels.tobytes()))
                for kind, split in (("training", self.train), ("test", self.test))
            },
        }

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) in pixels and channels."""
        height, width, channels = (int(side) for side in self.train.images.shape[1:])
        return height, width, channels


def examples_at_once(image_shape: tuple[int, ...]) -> int:
    """Number of images, at most 1024, whose widened copies take a bounded amount of memory."""
    return max(1, min(1024, 2**28 // max(1, math.prod(image_shape))))


def channel_statistics(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and standard deviation per channel, in 0..255 units.

    All images are used if they are in memory, otherwise at most 10,000, evenly spaced. The standard
    deviation of a constant channel is set to 1, so that its normalized values are 0.

    Args:
      split: training split, N > 0.

    Returns:
      (mean, std), C floats each.

    >>> channel_statistics(Split(np.full((2, 1, 1, 1), 7, np.uint8), np.zeros(2, np.int32)))
    ((7.0,), (1.0,))
    """
    examples, channels = len(split), split.images.shape[-1]
    if not isinstance(split.images, np.ndarray):
        examples = min(examples, _STATISTICS_EXAMPLES)
    indices = _evenly_spaced(len(split), examples)
    count, total, squares = 0, np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    step = examples_at_once(split.images.shape[1:])
    for start in range(0, examples, step):
        pixels = split.take(indices[start : start + step])[0].reshape(-1, channels)
        count += len(pixels)
        total += pixels.sum(axis=0, dtype=np.int64)
        # 255^2 fits uint16, so the sums are exact integers.
        squares += np.square(pixels, dtype=np.uint16).sum(axis=0, dtype=np.int64)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _evenly_spaced(count: int, wanted: int) -> np.ndarray:
    """Return at most `wanted` indices of `count` examples."""
    return np.linspace(0, count - 1, min(count, wanted)).astype(np.int64)
