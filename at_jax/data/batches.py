"""Training batches as a function of (seed, step), and evaluation batches that cover every example once."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from at_jax.data.crops import Crop, RandomResizedCrop
from at_jax.data.dataset import Split, take_images
from at_jax.data.memory import check_fits
from at_jax.errors import UserError

__all__ = ["Batch", "TrainBatches", "eval_batches"]

Batch = dict[str, np.ndarray]
# Keep order and crops independent of the subsets in subsets.py, which use 1 and 2.
_ORDER, _CROP = 3, 4
_FIX = "choose a batch_size that is a multiple of the number of processes"


class TrainBatches:
    """Shuffled training batches with random access.

    Each epoch has its own order, a function of (seed, epoch): as many permutations of the examples, one
    after the other, as it needs. The last E mod batch_size examples of an epoch are dropped; with
    ``drop_last=False`` they form a smaller batch. ``batch(step)`` is a pure function of (seed, step): a
    resumed run gets exactly the batches of an uninterrupted one.

    Args:
      split: N training examples.
      batch_size: global batch size B over all devices and processes, in 1..N.
      seed: seed of the order and of the crops, at least 0.
      epoch_examples: number E of examples of an epoch, at least ``batch_size``; 0 for N.
      random_crop: crop each image at random, as a function of (seed, step, position), and resize it; see
        :class:`at_jax.data.crops.RandomResizedCrop`.
      drop_last: False ends each epoch with a batch of the remaining examples.

    Raises:
      UserError: if an argument is out of range, or a batch does not fit into memory.

    >>> split = Split(np.zeros((5, 2, 2, 1), np.uint8), np.arange(5, dtype=np.int32))
    >>> batches = TrainBatches(split, batch_size=2, seed=0)
    >>> batches.steps_per_epoch, batches.batch(7)["position"].tolist()
    (2, [0, 1])
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        *,
        epoch_examples: int = 0,
        random_crop: bool = False,
        drop_last: bool = True,
    ) -> None:
        _check_batch_size(batch_size)
        if batch_size > len(split):
            raise UserError(
                f"batch_size: expected 1 to {len(split)} (the number of training images), got "
                f"{batch_size}: choose a smaller batch or more images"
            )
        if seed < 0:
            raise UserError(f"seed: expected 0 or more, got {seed}: use 0")
        if epoch_examples and epoch_examples < batch_size:
            raise UserError(
                f"data.epoch_examples: expected 0, or at least the batch size {batch_size}, got "
                f"{epoch_examples}: use 0 for all training images"
            )
        check_fits(
            f"batch_size {batch_size}: memory for a batch of images {split.images.shape[1:]}",
            batch_size * math.prod(split.images.shape[1:]),
            "choose a smaller batch or smaller images",
        )
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.epoch_examples, self.random_crop = epoch_examples or len(split), random_crop
        full, rest = divmod(self.epoch_examples, batch_size)
        keeps_rest = bool(rest) and not drop_last
        self.steps_per_epoch = full + keeps_rest
        # Examples in the last batch of an epoch; all others have batch_size.
        self.last_size = rest if keeps_rest else batch_size
        self._epoch_and_order: tuple[int | None, np.ndarray] = (None, np.empty(0, np.int64))

    def size(self, step: int) -> int:
        """Return the number of examples in the batch of `step` (from 0)."""
        is_last = (step + 1) % self.steps_per_epoch == 0
        return self.last_size if is_last else self.batch_size

    def equal_steps(self, step: int, most: int) -> int:
        """Return how many batches from `step` on, at most `most`, have the size of the first of them.

        >>> split = Split(np.zeros((5, 2, 2, 1), np.uint8), np.arange(5, dtype=np.int32))
        >>> batches = TrainBatches(split, batch_size=2, seed=0, drop_last=False)
        >>> [batches.equal_steps(step, 10) for step in range(4)]
        [2, 1, 1, 2]
        """
        if self.last_size == self.batch_size:
            return most
        before_last = self.steps_per_epoch - 1 - step % self.steps_per_epoch
        return min(most, max(before_last, 1))

    def indices(self, step: int) -> np.ndarray:
        """Return the indices of the examples in the batch of `step` (from 0), int64 ``(B,)``."""
        if step < 0:
            raise UserError(f"step: expected 0 or more, got {step}: count steps from 0")
        epoch, place = divmod(step, self.steps_per_epoch)
        # One tuple, read and replaced as a whole: a prefetching thread never sees half of an update.
        cached, order = self._epoch_and_order
        if cached != epoch:
            rng, number = np.random.default_rng((self.seed, _ORDER, epoch)), len(self.split)
            passes = -(-self.epoch_examples // number)
            order = np.concatenate([rng.permutation(number) for _ in range(passes)])
            self._epoch_and_order = (epoch, order)
        first = place * self.batch_size
        return order[first : first + self.size(step)]

    def batch(self, step: int, shard: tuple[int, int] = (0, 1)) -> Batch:
        """Return the batch of `step`, or the contiguous part of it that belongs to one process.

        Args:
          step: from 0.
          shard: (index, count) of the process; each gets b = size(step) / count examples.

        Returns:
          "image" uint8 ``(b, H, W, C)``, "label" int32 ``(b,)``, "position" int32 ``(b,)``: the index
          in the global batch, which keys the augmentation.

        Raises:
          UserError: if the batch cannot be divided into `count` equal parts.
        """
        position = self.positions(shard, step)
        return self.with_labels(step, position, self.images(step, position))

    def positions(self, shard: tuple[int, int], step: int = 0) -> np.ndarray:
        """Return the positions in the batch of `step` that belong to one process, int32 ``(b,)``.

        Raises:
          UserError: as :meth:`batch`.
        """
        size = self.size(step)
        fix = "set drop_last=True, or change epoch_examples" if size < self.batch_size else _FIX
        return np.arange(size, dtype=np.int32)[_part(size, shard, fix)]

    def images(self, step: int, position: np.ndarray) -> np.ndarray:
        """Return images of the batch of `step` by their positions ``(b,)``, uint8 ``(b, H, W, C)``."""
        crops: Sequence[Crop] = ()
        if self.random_crop:
            height, width = (int(side) for side in self.split.images.shape[1:3])
            keys = ((self.seed, _CROP, step, place) for place in position.tolist())
            crops = [RandomResizedCrop((height, width), key) for key in keys]
        return take_images(self.split.images, self.indices(step)[position], crops)

    def with_labels(self, step: int, position: np.ndarray, images: np.ndarray) -> Batch:
        """Return a part of the batch of `step`, whose images are decoded already."""
        labels = self.split.labels[self.indices(step)[position]]
        return {"image": images, "label": labels, "position": position}


def _check_batch_size(batch_size: int) -> None:
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise UserError(
            f"batch_size: expected an integer of 1 or more, got {batch_size!r}: use 128, for example"
        )


def _part(batch_size: int, shard: tuple[int, int], fix: str) -> slice:
    """Return the positions in a batch that belong to one process."""
    index, count = shard
    if count < 1 or not 0 <= index < count or batch_size % count:
        raise UserError(
            f"shard: expected (index, count) with index < count and count dividing the batch of "
            f"{batch_size}, got {shard}: {fix}"
        )
    size = batch_size // count
    return slice(index * size, (index + 1) * size)


def eval_batches(split: Split, batch_size: int, shard: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
    """Yield every example exactly once, in order.

    All batches have the same shape. The last one is padded by repeating its images with weight 0.

    Args:
      split: N examples.
      batch_size: global batch size B over all processes, at least 1.
      shard: (index, count) of the process; it gets b = B / count examples of each batch.

    Returns:
      An iterator over ceil(N / B) batches: "image" uint8 ``(b, H, W, C)``, "label" int32 ``(b,)`` and
      "weight" float32 ``(b,)``, 1 for an example and 0 for padding.

    Raises:
      UserError: if ``batch_size`` is below 1 or cannot be divided into `count` equal parts.

    >>> split = Split(np.zeros((3, 2, 2, 1), np.uint8), np.arange(3, dtype=np.int32))
    >>> [b["weight"].tolist() for b in eval_batches(split, 2)]
    [[1.0, 1.0], [1.0, 0.0]]
    """
    _check_batch_size(batch_size)
    part = _part(batch_size, shard, _FIX)

    # A separate generator, so that the checks above run at the call.
    def batches() -> Iterator[Batch]:
        place = np.arange(batch_size)[part]
        for start in range(0, len(split), batch_size):
            real = min(batch_size, len(split) - start)
            if real == batch_size:
                images, labels = split.take(start + place)
            else:  # images are taken, and decoded, once
                once, again = np.unique(place % real, return_inverse=True)
                images, labels = (x[again] for x in split.take(start + once))
            weight = (place < real).astype(np.float32)
            yield {"image": images, "label": labels, "weight": weight}

    return batches()
