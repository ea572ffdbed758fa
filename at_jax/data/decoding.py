"""Decoding: the encoded examples of a source become the splits of a data set, in memory or lazy."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from at_jax.data.crops import Crop
from at_jax.data.dataset import Dataset, Split, channel_statistics, examples_at_once
from at_jax.data.identity import Identity, identify
from at_jax.data.memory import check_fits
from at_jax.data.threads import WORKERS, in_threads
from at_jax.errors import UserError

__all__ = ["Examples", "LazyImages", "assemble", "check_held", "check_sizes", "is_held"]

_MAX_CHUNK = 64  # examples that a thread decodes at a time: enough for its overhead to vanish
_RESIZE = "resize all images with image_size=N pixels (--config.data.image_size=N)"


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """A split before it is decoded.

    Attributes:
      count: number of examples, N.
      read: indices ``(n,)``, and n crops or none, to n pairs of an image, uint8 ``(H, W, C)``, and a label.
        Called from threads, and from other processes.
      labels: returns the labels, ``(N,)`` integers, without decoding the images; None reads them with
        the images.
      describe: name of the example at an index in messages, such as the path of the file.
      resize: fix that messages give for images of different sizes.
      names: returns the names of the images in the data set, for its identity: nothing if the labels
        identify it; None if the images do.
      picklable: whether other processes can read them, too: they are files.
    """

    count: int
    read: Callable[[np.ndarray, Sequence[Crop]], Iterable[tuple[np.ndarray, int]]]
    labels: Callable[[], np.ndarray] | None
    describe: Callable[[int], str]
    resize: str = _RESIZE
    names: Callable[[], Iterable[str]] | None = None
    picklable: bool = False

    @functools.cached_property
    def image_shape(self) -> tuple[int, ...]:
        """Shape (H, W, C) of the first example, which all others must have."""
        ((image, _),) = self.read(np.array([0]), ())
        return image.shape

    def decode(
        self, indices: np.ndarray, crops: Sequence[Crop] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decode the examples at `indices` ``(n,)`` in threads: uint8 ``(n, H, W, C)``, int32 ``(n,)``.

        Args:
          indices: of the examples.
          crops: one for each; without any, the images as they are evaluated.
        """
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        labels = np.empty(len(indices), np.int32)
        # Several chunks per thread, so that none waits long for the last one of a small batch.
        step = max(1, min(_MAX_CHUNK, len(indices) // (4 * WORKERS)))

        def fill(start: int) -> None:
            chunk = indices[start : start + step]
            parts = crops[start : start + step]
            for place, (image, label) in enumerate(self.read(chunk, parts), start):
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
        select = getattr(self.read, "select", None)  # of a reader that reads other examples too
        selected = dataclasses.replace(
            self,
            count=len(indices),
            read=select(indices) if select else lambda at, crops: self.read(indices[at], crops),
            labels=None if labels is None else lambda: labels()[indices],
            describe=lambda place: self.describe(int(indices[place])),
            names=None if names is None else lambda: _selected(list(names()), indices),
        )
        if "image_shape" in vars(self):  # known: none is decoded again
            vars(selected)["image_shape"] = self.image_shape
        return selected

    def read_labels(self) -> np.ndarray:
        """Return the labels, int32 ``(N,)``, without keeping the images."""
        if self.labels is not None:
            return self.labels().astype(np.int32)
        step = examples_at_once(self.image_shape)
        chunks = np.array_split(np.arange(self.count), -(-self.count // step))
        return np.concatenate([self.decode(chunk)[1] for chunk in chunks])


@dataclasses.dataclass(frozen=True, eq=False)
class LazyImages:
    """Images that are decoded when taken.

    Attributes:
      examples: to decode.
    """

    examples: Examples

    @property
    def picklable(self) -> bool:
        """Whether other processes can read them, too."""
        return self.examples.picklable

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(N, H, W, C)``."""
        height, width, channels = self.examples.image_shape
        return self.examples.count, height, width, channels

    def take(self, indices: np.ndarray, crops: Sequence[Crop] = ()) -> np.ndarray:
        """Decode the images at `indices` ``(n,)``, uint8 ``(n, H, W, C)``."""
        return self.examples.decode(np.asarray(indices), crops)[0]

    def select(self, indices: np.ndarray) -> "LazyImages":
        """Return the images at `indices` ``(n,)``, in that order."""
        return LazyImages(self.examples.select(indices))


def assemble(
    name: str,
    train: Examples,
    test: Examples,
    class_names: Iterable[str],
    memory_limit_mb: int,
    *,
    streams_train: bool = False,
) -> Dataset:
    """Build a data set from two splits. Decode them at once if both fit in memory together.

    Args:
      name: name of the data set.
      train: training examples, at least one.
      test: examples that are evaluated, at least one.
      class_names: K names.
      memory_limit_mb: largest size of the decoded images in memory, in MiB. Larger data sets are
        decoded whenever images are taken.
      streams_train: decode training images whenever they are taken, each time another part of them.

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
    count = test.count + (0 if streams_train else train.count)
    in_memory = is_held(count, train.image_shape, memory_limit_mb)
    if in_memory:
        check_held(name, count, train.image_shape)
    class_names = tuple(class_names)
    train_split = _split(name, train, len(class_names), in_memory and not streams_train)
    test_split = _split(name, test, len(class_names), in_memory)
    mean, std = channel_statistics(train_split)
    origin = None
    if train.names is not None and test.names is not None:
        origin = Identity(
            class_names,
            identify(train_split.labels, train.names()),
            identify(test_split.labels, test.names()),
        )
    return Dataset(name, train_split, test_split, class_names, mean, std, origin=origin)


def _selected(names: list[str], indices: np.ndarray) -> list[str]:
    """Names at some indices; none if there are none, because the labels identify the set."""
    return [names[index] for index in indices.tolist()] if names else []


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


def check_held(name: str, count: int, image_shape: tuple[int, ...]) -> None:
    """Raise if the images of a data set that are held in memory do not fit into it."""
    check_fits(
        f"data set {name!r}: memory for {count:,} images of {_size(image_shape)}",
        count * math.prod(image_shape),
        "choose a smaller image_size, or a smaller memory_limit_mb to read them during training",
    )


def check_sizes(image_size: int, *, count: int = 1, pixel_bytes: int = 1) -> None:
    """Raise if `count` square images of a side do not fit into memory, before any is read."""
    check_fits(
        f"image_size {image_size}: memory for {count:,} image{'' if count == 1 else 's'}",
        count * pixel_bytes * image_size**2,
        "choose a smaller data.image_size",
    )


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape) + " (height x width x channels)"
