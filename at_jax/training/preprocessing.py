"""Augmentation and normalization of a run. Both run on the device."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from at_jax import data
from at_jax.training.components.arguments import Arguments
from at_jax.training.components.datasets import is_random_resized_crop
from at_jax.training.settings import DataSettings, Settings
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

    Raises:
      UserError: if an augmentation of the user changes shape, data type or range of the images.
    """
    normalize = functools.partial(data.normalize, mean=dataset.mean, std=dataset.std)
    if arguments.augment is None:
        augment = _augmentation(settings.data)
    else:
        some = np.unique(np.linspace(0, len(dataset.train) - 1, _CHECKED).astype(np.int64))
        data.check_range(arguments.augment, dataset.train.take(some)[0])
        augment = functools.partial(data.augment_each, arguments.augment)
    return lambda key, images, position: normalize(augment(key, images, position)), normalize


def _augmentation(
    settings: DataSettings,
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """Random crop, mirror image and colors of each image, as a config sets them."""
    # A random part of each photograph was resized when it was decoded.
    pad = 0 if is_random_resized_crop(settings) else settings.pad

    def augment(key, images, position):
        images = data.augment(
            key, images, position, pad=pad, mirror=settings.mirror, pad_mode=settings.pad_mode
        )
        if settings.color_jitter:
            images = data.color_jitter(key, images, position, strength=settings.color_jitter)
        return images

    return augment
