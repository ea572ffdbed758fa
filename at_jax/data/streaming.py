"""Training batches that are decoded ahead of time, in worker processes or in threads.

The batch of a step is a function of (seed, step), regardless of how it is decoded. A stream can therefore
start at any step, and a resumed run needs only its step.
"""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from at_jax.data import workers as worker_processes
from at_jax.data.batches import Batch, TrainBatches
from at_jax.errors import UserError, one_line

__all__ = ["Stream"]

# Images that a worker decodes at a time: passing one between processes costs as much as passing many.
_CHUNK = 16
_BATCHES_AHEAD = 2


class Stream:
    """The batches of a training run, in order.

    Args:
      batches: as functions of (seed, step).
      shard: (index, count) of the process.
      workers: processes that decode images; 0: automatic, -1: threads of this process.
    """

    def __init__(self, batches: TrainBatches, shard: tuple[int, int] = (0, 1), workers: int = -1):
        batches.positions(shard)  # both sizes of a batch are checked before training
        batches.positions(shard, batches.steps_per_epoch - 1)
        self._batches, self._shard = batches, shard
        self._workers = worker_processes.count(batches, workers)
        self._reader: _Reader | None = None
        self._next = -1  # step of the next images of the reader

    def batch(self, step: int) -> Batch:
        """Return the part of the batch of `step` that belongs to this process.

        Consecutive steps are decoded ahead of time. Any other step restarts the stream there.

        Returns:
          See :meth:`TrainBatches.batch`.

        Raises:
          UserError: if an image can no longer be read.
        """
        position = self._batches.positions(self._shard, step)
        if isinstance(self._batches.split.images, np.ndarray):
            images = self._batches.images(step, position)
        else:
            if self._reader is None or step != self._next:
                self.close()
                start = self._batches, self._shard, step
                self._reader = (
                    _Processes(*start, self._workers) if self._workers else _Threads(*start)
                )
            self._next = step + 1
            images = self._reader.read()
        return self._batches.with_labels(step, position, images)

    def close(self) -> None:
        """Stop decoding ahead; the next :meth:`batch` restarts it."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class _Reader(Protocol):
    """Images of one step after the other."""

    def read(self) -> np.ndarray:
        """Return the images of the next step."""

    def close(self) -> None:
        """End threads or processes."""


class _Threads:
    """Decodes in the threads of this process; one more begins steps ahead of time."""

    def __init__(self, batches: TrainBatches, shard: tuple[int, int], first: int):
        self._batches, self._shard, self._step = batches, shard, first
        self._ahead = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="at_jax_stream")
        self._waiting: collections.deque[concurrent.futures.Future[np.ndarray]] = (
            collections.deque()
        )

    def read(self) -> np.ndarray:
        while len(self._waiting) <= _BATCHES_AHEAD:
            position = self._batches.positions(self._shard, self._step)
            begun = self._ahead.submit(self._batches.images, self._step, position)
            self._waiting.append(begun)
            self._step += 1
        return self._waiting.popleft().result()

    def close(self) -> None:
        self._ahead.shutdown(wait=True, cancel_futures=True)


@dataclasses.dataclass(frozen=True, eq=False)
class _Chunks:
    """Random access to parts of the batches, from a step on: what a worker process decodes.

    Attributes:
      batches: without their labels.
      shard: (index, count) of the process.
      parts: number of chunks of a batch.
      first: step.
    """

    batches: TrainBatches
    shard: tuple[int, int]
    parts: int
    first: int

    def __len__(self) -> int:
        return (2**31 - self.first) * self.parts

    def __getitem__(self, index: Any) -> dict[str, Any]:
        step, place = divmod(int(index) + self.first * self.parts, self.parts)
        position = np.array_split(self.batches.positions(self.shard, step), self.parts)[place]
        if not len(position):  # a last batch of fewer examples than chunks
            return {"image": np.empty((0, *self.batches.split.images.shape[1:]), np.uint8)}
        try:
            return {"image": self.batches.images(step, position)}
        except UserError as error:  # to be raised by the run
            return {"error": str(error)}


class _Processes:
    """Decodes in worker processes of Grain."""

    def __init__(self, batches: TrainBatches, shard: tuple[int, int], first: int, workers: int):
        import grain
        from absl import flags

        if not flags.FLAGS.is_parsed():  # Grain reads flags of its own
            flags.FLAGS.mark_as_parsed()
        size = len(batches.positions(shard))
        self._parts = min(size, max(workers, -(-size // _CHUNK)))
        buffer = max(1, -(-_BATCHES_AHEAD * self._parts // workers))
        chunks = grain.MapDataset.source(_Chunks(batches, shard, self._parts, first))
        # Chunks are joined here, after the prefetch: batches made in the workers may lose examples.
        decoded = chunks.to_iter_dataset(
            grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
        ).mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=buffer),
            worker_init_fn=worker_processes.prepare,
        )
        self._iterator: Iterator[dict[str, Any]] = iter(decoded)

    def read(self) -> np.ndarray:
        chunks = []
        for _ in range(self._parts):
            try:
                chunk = next(self._iterator)
            except RuntimeError as error:
                reason = one_line(error)
                raise UserError(
                    f"data.workers: expected images from a worker process, got {reason}: use fewer of them "
                    "if memory ran out, or --config.data.workers=-1 to decode in threads"
                ) from error
            if "error" in chunk:
                raise UserError(str(chunk["error"]))
            chunks.append(chunk["image"])
        return np.concatenate(chunks)

    def close(self) -> None:
        self._iterator.close()  # type: ignore[attr-defined]
