"""The data set of a run: loading, and the choice of images."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from at_jax import data
from at_jax.data import checks
from at_jax.distributed import processes
from at_jax.errors import UserError
from at_jax.training.config import order_seed
from at_jax.training.settings import DataSettings, Settings

__all__ = ["batches", "load_dataset"]

# Decoding a data set takes seconds; the teacher and the student of one command share it.
_load = functools.lru_cache(maxsize=1)(data.load)


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
        )
    else:
        load = functools.partial(_choose, given, choice)
    # Each process reads its machine's own copy.
    dataset = processes.run_on_all(load)
    processes.check_same(dataset.summary())
    return _with_statistics(dataset, settings)


def batches(settings: Settings, dataset: data.Dataset) -> data.TrainBatches:
    """Training batches of a run."""
    seed, examples = order_seed(settings), settings.data.epoch_examples
    return data.TrainBatches(dataset.train, settings.batch_size, seed, examples)


def _with_statistics(dataset: data.Dataset, settings: DataSettings) -> data.Dataset:
    if not settings.mean:
        return dataset
    channels = dataset.image_shape[-1]
    if len(settings.mean) != channels:
        raise UserError(
            f"data.mean must have one number a channel, {channels} for {dataset.name}, got "
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
        with _naming("data.validation_examples", held_out):
            dataset = data.hold_out(dataset, held_out, split_seed)
    with _naming("data.train_examples", examples):
        return data.few_labels(dataset, examples, split_seed)


@contextlib.contextmanager
def _naming(key: str, value: int) -> Iterator[None]:
    """Add the config key to the message of a choice of images that cannot be made."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{key}={value}: {error}") from None
