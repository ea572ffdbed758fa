"""Decoding: the encoded examples of a source become the splits of a data set, in memory or lazy."""

import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from at_jax.data.dataset import Dataset, Split, channel_statistics
from at_jax.errors import UserError

__all__ = ["Examples", "LazyImages", "as_array", "assemble", "to_square"]

_WORKERS = min(32, os.cpu_count() or 1)
_MAX_CHUNK = 64  # examples that a thread decodes at a time: enough for its overhead to vanish
_RESIZE = "resize all images with image_size=N pixels (--config.data.image_size=N)"


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """A split before it is decoded.

    Attributes:
      count: number of examples, N.
      read: indices ``(n,)`` to n pairs of an image, uint8 ``(H, W, C)``, and a label. Called from
        threads.
      labels: returns the labels, ``(N,)`` integers, without decoding the images; None reads them with
        the images.
      describe: name of the example at an index in messages, such as the path of the file.
      resize: fix that messages give for images of different sizes.
    """

    count: int
    read: Callable[[np.ndarray], Iterable[tuple[np.ndarray, int]]]
    labels: Callable[[], np.ndarray] | None
    describe: Callable[[int], str]
    resize: str = _RESIZE

    @functools.cached_property
    def image_shape(self) -> tuple[int, ...]:
        """Shape (H, W, C) of the first example, which all others must have."""
        ((image, _),) = self.read(np.array([0]))
        return image.shape

    def decode(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decode the examples at `indices` ``(n,)`` in threads: uint8 ``(n, H, W, C)``, int32 ``(n,)``."""
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        labels = np.empty(len(indices), np.int32)
        # Several chunks per thread, so that none waits long for the last one of a small batch.
        step = max(1, min(_MAX_CHUNK, len(indices) // (4 * _WORKERS)))

        def fill(start: int) -> None:
            chunk = indices[start : start + step]
            for place, (image, label) in enumerate(self.read(chunk), start):
                if image.shape != self.image_shape:
                    raise UserError(
                        f"{self.describe(int(indices[place]))}: expected {_size(self.image_shape)} as "
                        f"in {self.describe(0)}, got {_size(image.shape)}: {self.resize}"
                    )
                images[place], labels[place] = image, label

        # The first error ends the loop, and with it the chunks that have not begun.
        for _ in _threads().map(fill, range(0, len(indices), step)):
            pass
        return images, labels

    def read_labels(self) -> np.ndarray:
        """Return the labels, int32 ``(N,)``, without keeping the images."""
        if self.labels is not None:
            return self.labels().astype(np.int32)
        chunks = np.array_split(np.arange(self.count), -(-self.count // 1024))
        return np.concatenate([self.decode(chunk)[1] for chunk in chunks])


@dataclasses.dataclass(frozen=True, eq=False)
class LazyImages:
    """Images that are decoded when taken."""

    examples: Examples

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(N, H, W, C)``."""
        height, width, channels = self.examples.image_shape
        return self.examples.count, height, width, channels

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Decode the images at `indices` ``(n,)``, uint8 ``(n, H, W, C)``."""
        return self.examples.decode(np.asarray(indices))[0]


def assemble(
    name: str,
    train: Examples,
    test: Examples,
    class_names: Iterable[str],
    memory_limit_mb: int,
) -> Dataset:
    """Build a data set from two splits. Decode them at once if both fit in memory together.

    Args:
      name: name of the data set.
      train: training examples, at least one.
      test: examples that are evaluated, at least one.
      class_names: K names.
      memory_limit_mb: largest size of the decoded images in memory, in MiB. Larger data sets are
        decoded whenever images are taken.

    Returns:
      The data set.

    Raises:
      UserError: if images differ in size, or a label is not in 0..K-1.
    """
    if train.image_shape != test.image_shape:
        raise UserError(
            f"data set {name!r}: expected training and test images of one size, got "
            f"{_size(train.image_shape)} ({train.describe(0)}) and {_size(test.image_shape)} "
            f"({test.describe(0)}): {train.resize}"
        )
    size = (train.count + test.count) * int(np.prod(train.image_shape))
    in_memory = size <= memory_limit_mb * 2**20
    class_names = tuple(class_names)
    train_split, test_split = (
        _split(name, examples, len(class_names), in_memory) for examples in (train, test)
    )
    mean, std = channel_statistics(train_split)
    return Dataset(name, train_split, test_split, class_names, mean, std)


def _split(name: str, examples: Examples, num_classes: int, in_memory: bool) -> Split:
    if in_memory:
        split = Split(*examples.decode(np.arange(examples.count)))
    else:
        split = Split(LazyImages(examples), examples.read_labels())
    wrong = np.flatnonzero((split.labels < 0) | (split.labels >= num_classes))
    if len(wrong):
        raise UserError(
            f"data set {name!r}: expected labels from 0 to {num_classes - 1}, got "
            f"{split.labels[wrong[0]]} at {examples.describe(int(wrong[0]))}: use a labeled split"
        )
    return split


def to_square(image: Any, size: int) -> Any:
    """Resize a PIL image so that its shorter side is `size` pixels, and crop the center square.

    Args:
      image: PIL image.
      size: side of the result in pixels; 0 returns the image unchanged.

    Returns:
      PIL image of size x size pixels (bilinear, with antialiasing where it shrinks).
    """
    from PIL import Image

    if size == 0 or image.size == (size, size):
        return image
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def as_array(image: Any) -> np.ndarray:
    """Convert a PIL image to uint8 ``(H, W, C)``, with C = 1 for gray."""
    array = np.asarray(image, np.uint8)
    return array if array.ndim == 3 else array[..., None]


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape) + " (height x width x channels)"


@functools.cache
def _threads() -> concurrent.futures.ThreadPoolExecutor:
    # One pool per process: a lazy split takes a batch every few milliseconds.
    return concurrent.futures.ThreadPoolExecutor(_WORKERS, thread_name_prefix="at_jax_decode")
