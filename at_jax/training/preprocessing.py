"""Augmentation and normalization of a run. Both run on the device."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from at_jax import data
from at_jax.training.arguments import Arguments
from at_jax.training.config import Settings
from at_jax.training.datasets import is_random_resized_crop
from at_jax.training.step import Prepare

__all__ = ["preprocessing"]

# Images on which a user-defined augmentation is tried.
_CHECKED = 4


def preprocessing(
    settings: Settings, dataset: data.Dataset, arguments: Arguments
) -> tuple[Prepare, Callable[[jax.Array], jax.Array]]:
    """Build the functions that turn uint8 images into the input of the networks.

    Args:
      settings: of the run.
      dataset: with the statistics of the normalization.
      arguments: passed by the user.

    Returns:
      Augmentation with normalization, for training, and normalization alone.
    """
    normalize = functools.partial(data.normalize, mean=dataset.mean, std=dataset.std)
    if arguments.augment is not None:
        some = np.unique(np.linspace(0, len(dataset.train) - 1, _CHECKED).astype(np.int64))
        data.check_range(arguments.augment, dataset.train.take(some)[0])
        augment = functools.partial(data.augment_each, arguments.augment)
    else:
        # A random part of each photograph was resized when it was decoded.
        pad = 0 if is_random_resized_crop(settings.data) else settings.data.pad
        augment = functools.partial(
            data.augment,
            pad=pad,
            mirror=settings.data.mirror,
            pad_mode=settings.data.pad_mode,
        )
    jitter = 0.0 if arguments.augment is not None else settings.data.color_jitter

    def prepare(key, images, position):
        images = augment(key, images, position)
        if jitter:
            images = data.color_jitter(key, images, position, strength=jitter)
        return normalize(images)

    return prepare, normalize
