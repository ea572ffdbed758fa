"""Data sources by name."""

import difflib
from collections.abc import Callable

import numpy as np

from at_jax.data.dataset import Dataset
from at_jax.data.digits import load_digits
from at_jax.data.folder.source import load_folder
from at_jax.data.load_options import LoadOptions
from at_jax.data.tfds.source import load_tfds
from at_jax.errors import UserError

__all__ = ["SOURCES", "load"]

SOURCES: dict[str, Callable[[LoadOptions], Dataset]] = {
    "digits": load_digits,
    "folder": load_folder,
    "tfds": load_tfds,
}


def load(
    source: str,
    *,
    name: str = "",
    data_dir: str = "",
    image_size: int = 0,
    memory_limit_mb: int = 4096,
    skip_corrupt: bool = False,
    resize: int = 0,
    random_crop: bool = False,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    crop: str = "",
) -> Dataset:
    """Load a data set.

    Args:
      source: "digits", "folder" or "tfds".
      name: for "tfds" the name of the set, such as "cifar10"; for "folder" an optional name in tables.
      data_dir: for "tfds" the directory of prepared sets; for "folder" the directory that contains
        train and test, or the classes.
      image_size: 0 keeps the size of the images (digits: 16). Otherwise the shorter side is resized to
        this many pixels (bilinear) and the center square is cropped.
      resize: for "folder" and "tfds": pixels that the shorter side is resized to before the center square
        of image_size is cropped; 0: image_size.
      random_crop: for "folder" and "tfds": decode training images each time they are used, so that a
        different crop can be resized to image_size each time.
      test_fraction: for "folder" without train and test: fraction of each class in the test set.
      split_seed: for "folder" without train and test: seed of that choice.
      crop: for "tfds": bounding-box feature to which each image is cropped first, such as "bbox".
      memory_limit_mb: largest size of the decoded images in memory, in MiB. Larger data sets are decoded
        batch by batch.
      skip_corrupt: for "folder" and "tfds": skip images that cannot be read; otherwise they are an
        error.

    Returns:
      The data set.

    Raises:
      UserError: if the source is unknown, a number is out of range, or the set cannot be loaded.

    >>> dataset = load("digits")
    >>> dataset.image_shape, len(dataset.train), len(dataset.test)
    ((16, 16, 1), 1442, 355)
    """
    if source not in SOURCES:
        raise UserError(
            f"data source: expected one of {', '.join(SOURCES)}, got {source!r}: {_hint(source)}"
        )
    _check_sizes(image_size, resize, memory_limit_mb)
    _check_split(test_fraction, split_seed)
    _check_crop(source, crop)
    options = LoadOptions(
        name=name, data_dir=data_dir, image_size=image_size, memory_limit_mb=memory_limit_mb,
        skip_corrupt=skip_corrupt, resize=resize, random_crop=random_crop,
        test_fraction=test_fraction, split_seed=split_seed, crop=crop,
    )  # fmt: skip
    return SOURCES[source](options)


def _check_sizes(image_size: int, resize: int, memory_limit_mb: int) -> None:
    _check_count("image_size", image_size, "use 0 to keep the images' size")
    _check_count("resize", resize, "use 0 to resize to image_size")
    _check_count("memory_limit_mb", memory_limit_mb, "use 0 to decode images with each batch")
    if resize and not 0 < image_size <= resize:
        raise UserError(
            f"resize: expected at least image_size, {image_size}, which is not 0, got {resize}: choose a "
            "larger one, or 0 to use image_size"
        )


def _check_count(name: str, value: int, fix: str) -> None:
    if not isinstance(value, int | np.integer) or value < 0:
        raise UserError(
            f"{name}: expected an integer of 0 or more, got {value!r}: {fix}, or another integer"
        )


def _check_split(test_fraction: float, split_seed: int) -> None:
    _check_count("split_seed", split_seed, "use 0")
    if not (isinstance(test_fraction, int | float | np.number) and 0 < test_fraction < 1):
        raise UserError(
            f"test_fraction: expected a number between 0 and 1, got {test_fraction!r}: use 0.2 for a fifth "
            "of the images of each class"
        )


def _hint(source: str) -> str:
    """Name the nearest source, or the source that reads sets of such a name."""
    if close := difflib.get_close_matches(str(source), SOURCES, n=1):
        return f"did you mean {close[0]!r}?"
    return f"for a TFDS set pass --config.data.source=tfds --config.data.name={source}"


def _check_crop(source: str, crop: str) -> None:
    if crop and source != "tfds":
        raise UserError(
            f"data.crop: expected a TFDS set, whose examples have bounding boxes, got {crop!r} with "
            f"data.source={source!r}: leave data.crop empty"
        )
