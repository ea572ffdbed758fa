"""Decoding: the encoded examples of a source become the splits of a data set, in memory or lazy."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from at_jax.data.dataset import Dataset, Split, channel_statistics, examples_at_once
from at_jax.data.identity import Identity, identify
from at_jax.data.memory import check_fits
from at_jax.data.threads import WORKERS, in_threads
from at_jax.errors import UserError

__all__ = [
    "Examples", "LazyImages", "as_array", "assemble", "check_sizes", "is_held", "to_square",
]  # fmt: skip

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
      names: returns the names of the images in the data set, for its identity: nothing if the labels
        identify it; None if the images do.
    """

    count: int
    read: Callable[[np.ndarray], Iterable[tuple[np.ndarray, int]]]
    labels: Callable[[], np.ndarray] | None
    describe: Callable[[int], str]
    resize: str = _RESIZE
    names: Callable[[], Iterable[str]] | None = None

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
        step = max(1, min(_MAX_CHUNK, len(indices) // (4 * WORKERS)))

        def fill(start: int) -> None:
            chunk = indices[start : start + step]
            for place, (image, label) in enumerate(self.read(chunk), start):
                self.check_shape(int(indices[place]), image.shape)
                images[place], labels[place] = image, label

        for _ in in_threads(fill, range(0, len(indices), step)):
            pass
        return images, labels

    def check_shape(self, index: int, shape: tuple[int, ...]) -> None:
        """Raise unless the image at an index has the shape of all."""
        if shape != self.image_shape:
            raise UserError(
                f"{self.describe(index)}: expected {_size(self.image_shape)} as in {self.describe(0)}, "
                f"got {_size(shape)}: {self.resize}"
            )

    def select(self, indices: np.ndarray) -> "Examples":
        """Return the examples at `indices` ``(n,)``, in that order."""
        labels, names = self.labels, self.names

        def selected() -> list[str]:
            found = list(names()) if names is not None else []
            return [found[index] for index in indices.tolist()] if found else []

        return Examples(
            len(indices),
            lambda places: self.read(indices[places]),
            None if labels is None else lambda: labels()[indices],
            lambda place: self.describe(int(indices[place])),
            self.resize,
            None if names is None else selected,
        )

    def read_labels(self) -> np.ndarray:
        """Return the labels, int32 ``(N,)``, without keeping the images."""
        if self.labels is not None:
            return self.labels().astype(np.int32)
        step = examples_at_once(self.image_shape)
        chunks = np.array_split(np.arange(self.count), -(-self.count // step))
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
      UserError: if images differ in size, do not fit into memory, or a label is not in 0..K-1.
    """
    if train.image_shape != test.image_shape:
        raise UserError(
            f"data set {name!r}: expected training and test images of one size, got "
            f"{_size(train.image_shape)} ({train.describe(0)}) and {_size(test.image_shape)} "
            f"({test.describe(0)}): {train.resize}"
        )
    count = train.count + test.count
    in_memory = is_held(count, train.image_shape, memory_limit_mb)
    if in_memory:
        check_fits(
            f"data set {name!r}: memory for {count:,} images of {_size(train.image_shape)}",
            count * math.prod(train.image_shape),
            "choose a smaller image_size, or a smaller memory_limit_mb to read them while training",
        )
    class_names = tuple(class_names)
    train_split, test_split = (
        _split(name, examples, len(class_names), in_memory) for examples in (train, test)
    )
    mean, std = channel_statistics(train_split)
    origin = None
    if train.names is not None and test.names is not None:
        origin = Identity(
            class_names,
            identify(train_split.labels, train.names()),
            identify(test_split.labels, test.names()),
        )
    return Dataset(name, train_split, test_split, class_names, mean, std, origin=origin)


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


def is_held(count: int, image_shape: tuple[int, ...], memory_limit_mb: int) -> bool:
    """Whether `count` images are held in memory."""
    return count * math.prod(image_shape) <= memory_limit_mb * 2**20


def check_sizes(image_size: int, *, count: int = 1, pixel_bytes: int = 1) -> None:
    """Raise if `count` square images of a side do not fit into memory, before any is read."""
    check_fits(
        f"image_size {image_size}: memory for {count:,} image{'' if count == 1 else 's'}",
        count * pixel_bytes * image_size**2,
        "choose a smaller data.image_size",
    )


def to_square(image: Any, size: int) -> Any:
    """Resize the center square of a PIL image to `size` x `size` pixels.

    Pixels outside of the square are not computed: a picture of 65000x1 pixels would become one of 65000
    squares.

    Args:
      image: PIL image.
      size: side of the result in pixels; 0 returns the image unchanged.

    Returns:
      PIL image of size x size pixels (bilinear, with antialiasing where it shrinks).
    """
    from PIL import Image

    if size == 0 or image.size == (size, size):
        return image
    short = min(image.size)
    box = [0.0, 0.0, *map(float, image.size)]
    for axis, side in enumerate(image.size):
        # As if the whole image were resized, to whole pixels, and then cropped at whole pixels.
        resized = max(size, round(side * size / short))
        start = (resized - size) // 2
        box[axis] = start * side / resized
        box[axis + 2] = min(float(side), (start + size) * side / resized)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=tuple(box))


def as_array(image: Any) -> np.ndarray:
    """Convert a PIL image to uint8 ``(H, W, C)``, with C = 1 for gray."""
    array = np.asarray(image, np.uint8)
    return array if array.ndim == 3 else array[..., None]


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape) + " (height x width x channels)"
