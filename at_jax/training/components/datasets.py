"""The data set of a run: loading, and the choice of images."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from at_jax import data
from at_jax.data import checks, workers
from at_jax.distributed import processes
from at_jax.errors import UserError, naming
from at_jax.training.config import order_seed
from at_jax.training.settings import DataSettings, Settings

__all__ = [
    "check_moved", "is_random_resized_crop", "kept_in_memory", "load_dataset", "streaming_line",
    "train_batches",
]  # fmt: skip

# Decoding a data set takes seconds; the teacher and the student of one command share it.
_load = functools.lru_cache(maxsize=1)(data.load)
_users: list[None] = []  # contexts of kept_in_memory that are active


@contextlib.contextmanager
def kept_in_memory() -> Iterator[None]:
    """Keep loaded data sets until the outermost context ends.

    Images that are added to a folder are read by the next run of a process, and its memory is free then.
    """
    _users.append(None)
    try:
        yield
    finally:
        _users.pop()
        if not _users:
            _chosen.cache_clear()
            _load.cache_clear()


def load_dataset(
    settings: DataSettings, *, hold_out: bool = True, given: data.Dataset | None = None
) -> data.Dataset:
    """Load a data set, and choose its labeled images and its validation split.

    Args:
      settings: the section ``data``.
      hold_out: False keeps the test set as the split that is evaluated.
      given: the user's data set, in place of the one that the settings name.

    Returns:
      The data set; the same object for equal settings.

    Raises:
      UserError: if the images cannot be read, or the choice cannot be made.
    """
    held_out = settings.validation_examples if hold_out else 0
    choice = (held_out, settings.train_examples, settings.split_seed)
    if given is None:
        load = functools.partial(
            _chosen,
            settings.source,
            choice,
            name=settings.name,
            data_dir=settings.data_dir,
            image_size=settings.image_size,
            memory_limit_mb=settings.memory_limit_mb,
            skip_corrupt=settings.skip_corrupt,
            resize=_evaluation_resize(settings),
            random_crop=is_random_resized_crop(settings),
            test_fraction=settings.test_fraction,
            split_seed=settings.split_seed,
            crop=settings.crop,
        )
    else:
        load = functools.partial(_choose, given, choice)
    # Each process reads its machine's own copy.
    dataset = processes.run_on_all(load)
    processes.check_same(dataset.summary())
    return _with_statistics(dataset, settings)


def check_moved(source: str, data_dir: str) -> None:
    """Raise if the images of a run are said to be in another directory, and its source has none.

    Raises:
      UserError: naming the directory.
    """
    if source == "digits" and data_dir:
        raise UserError(
            f"data_dir is for folders and TFDS sets, got {data_dir} for the digits, which are part of "
            "scikit-learn: leave it out"
        )


def is_random_resized_crop(settings: DataSettings) -> bool:
    """Whether a random part of each training image is resized."""
    return settings.augmentation == "random_resized_crop"


def train_batches(settings: Settings, dataset: data.Dataset) -> data.TrainBatches:
    """Build the training batches of a run.

    Raises:
      UserError: if a batch cannot be made, or decoded with these settings.
    """
    batches = data.TrainBatches(
        dataset.train,
        settings.batch_size,
        order_seed(settings),
        epoch_examples=settings.data.epoch_examples,
        random_crop=is_random_resized_crop(settings.data),
        drop_last=settings.data.drop_last,
    )
    workers.count(batches, settings.data.workers)  # a check
    return batches


def streaming_line(batches: data.TrainBatches, settings: DataSettings) -> str:
    """Format a line if training images are decoded during training; empty if they are in memory."""
    images = batches.split.images
    if isinstance(images, np.ndarray):
        return ""
    count = workers.count(batches, settings.workers)
    who = f"{count} worker process{'es' if count > 1 else ''}" if count else "threads"
    size = math.prod(images.shape) / 2**20
    if size > settings.memory_limit_mb:
        why = f"{size:,.0f} MiB, more than data.memory_limit_mb={settings.memory_limit_mb:,}"
    else:
        why = f"data.augmentation={settings.augmentation}"
    return f"streamed: training images are decoded during training, by {who} ({why})"


def _evaluation_resize(settings: DataSettings) -> int:
    """Pixels of the shorter side before the center of an image is cropped; 0: those of the crop."""
    if settings.resize or not is_random_resized_crop(settings):
        return settings.resize
    return round(settings.image_size * 8 / 7)


def _with_statistics(dataset: data.Dataset, settings: DataSettings) -> data.Dataset:
    if not settings.mean:
        return dataset
    channels = dataset.image_shape[-1]
    if len(settings.mean) != channels:
        raise UserError(
            f"data.mean must have one number per channel, {channels} for {dataset.name}, got "
            f"{settings.mean}: set data.mean and data.std, or leave both empty"
        )
    return dataclasses.replace(dataset, mean=settings.mean, std=settings.std)


# Two: the teacher's choice and the student's.
@functools.lru_cache(maxsize=2)
def _chosen(source: str, choice: tuple[int, int, int], **options: Any) -> data.Dataset:
    return _choose(_load(source, **options), choice)


def _choose(dataset: data.Dataset, choice: tuple[int, int, int]) -> data.Dataset:
    held_out, examples, split_seed = choice
    dataset = dataclasses.replace(dataset, origin=dataset.identity)  # of all images
    for part in ("train", "test"):
        labels = getattr(dataset, part).labels
        checks.check_labels(
            f"data set {dataset.name!r}, {part} labels", labels, dataset.class_names
        )
    if held_out:
        with naming("data.validation_examples", held_out):
            dataset = data.hold_out(dataset, held_out, split_seed)
    with naming("data.train_examples", examples):
        return data.few_labels(dataset, examples, split_seed)
