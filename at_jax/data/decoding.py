"""From a source's encoded examples to the splits of a dataset: decode, bring to size, hold or not."""

import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable

import numpy as np

from at_jax.data.dataset import Dataset, Split, channel_statistics

_WORKERS = min(32, os.cpu_count() or 1)
_MAX_CHUNK = 64  # examples a thread decodes at a time: enough to make its overhead vanish


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """A split before it is decoded.

    Attributes:
      count: N.
      read: indices (n,) -> n pairs of image, uint8 (H, W, C), and label. Called from threads.
      labels: () -> (N,) integers, without decoding an image.
      describe: index -> what a message calls the example, such as the file's path.
    """

    count: int
    read: Callable[[np.ndarray], Iterable[tuple[np.ndarray, int]]]
    labels: Callable[[], np.ndarray]
    describe: Callable[[int], str]

    @functools.cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the first example, which every other one must have."""
        ((image, _),) = self.read(np.array([0]))
        return image.shape

    def decode(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decodes in threads: indices (n,) -> uint8 (n, H, W, C), int32 (n,)."""
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        labels = np.empty(len(indices), np.int32)
        # Several chunks a thread, so that none waits long for the last one of a small batch.
        step = max(1, min(_MAX_CHUNK, len(indices) // (4 * _WORKERS)))

        def fill(start: int) -> None:
            chunk = indices[start : start + step]
            for place, (image, label) in enumerate(self.read(chunk), start):
                if image.shape != self.image_shape:
                    first, other = self.describe(0), self.describe(int(indices[place]))
                    raise ValueError(
                        f"{other} is {_size(image.shape)}: expected {_size(self.image_shape)} like "
                        f"{first}; bring all images to one size with image_size=N (pixels)"
                    )
                images[place], labels[place] = image, label

        # The first error ends the loop, and with it the chunks that have not begun.
        for _ in _threads().map(fill, range(0, len(indices), step)):
            pass
        return images, labels


@dataclasses.dataclass(frozen=True, eq=False)
class LazyImages:
    """Images that stay encoded until they are taken."""

    examples: Examples

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        return (self.examples.count, *self.examples.image_shape)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Decodes the images at `indices` (n,): uint8 (n, H, W, C)."""
        return self.examples.decode(np.asarray(indices))[0]


def assemble(
    name: str,
    train: Examples,
    test: Examples,
    class_names: Iterable[str],
    memory_limit_mb: int,
) -> Dataset:
    """Makes a dataset of two splits, decoded at once when both fit in memory together.

    Args:
      name: The dataset's name.
      train: Training examples, at least one.
      test: Examples that are evaluated, at least one.
      class_names: K names.
      memory_limit_mb: Up to this many MiB of decoded images are held; beyond, images are decoded
        whenever they are taken.

    Returns:
      The dataset.

    Raises:
      ValueError: Images differ in size, or a label names no class.
    """
    if train.image_shape != test.image_shape:
        raise ValueError(
            f"{name!r}: expected training and test images of one size, got "
            f"{_size(train.image_shape)} ({train.describe(0)}) and {_size(test.image_shape)} "
            f"({test.describe(0)}): bring both to one size with image_size=N (pixels)"
        )
    size = (train.count + test.count) * int(np.prod(train.image_shape))
    held = size <= memory_limit_mb * 2**20
    class_names = tuple(class_names)
    splits = [_split(name, examples, len(class_names), held) for examples in (train, test)]
    mean, std = channel_statistics(splits[0])
    return Dataset(name, *splits, class_names=class_names, mean=mean, std=std)


def _split(name: str, examples: Examples, num_classes: int, held: bool) -> Split:
    if held:
        split = Split(*examples.decode(np.arange(examples.count)))
    else:
        split = Split(LazyImages(examples), examples.labels().astype(np.int32))
    wrong = np.flatnonzero((split.labels < 0) | (split.labels >= num_classes))
    if len(wrong):
        raise ValueError(
            f"{name!r}: expected labels from 0 to {num_classes - 1}, got "
            f"{split.labels[wrong[0]]} at {examples.describe(int(wrong[0]))}: use a labelled split"
        )
    return split


def to_square(image, size: int):
    """Resizes a PIL image so that its shorter side is `size` pixels, and crops the centre square.

    Args:
      image: A PIL image.
      size: Side of the result in pixels; 0 returns the image as it is.

    Returns:
      A PIL image of size x size pixels (bilinear, with antialiasing where it shrinks).
    """
    from PIL import Image

    if size == 0 or image.size == (size, size):
        return image
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def as_array(image) -> np.ndarray:
    """Returns a PIL image as uint8 (H, W, C), with C = 1 for grey."""
    array = np.asarray(image, np.uint8)
    return array if array.ndim == 3 else array[..., None]


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape) + " (height x width x channels)"


@functools.cache
def _threads() -> concurrent.futures.ThreadPoolExecutor:
    # One pool for the process: a lazy split takes a batch every few milliseconds.
    return concurrent.futures.ThreadPoolExecutor(_WORKERS, thread_name_prefix="at_jax_decode")
