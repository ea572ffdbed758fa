"""The data sources by name."""

from at_jax.data.dataset import Dataset
from at_jax.data.digits import load_digits
from at_jax.data.folder import load_folder
from at_jax.data.tfds_source import load_tfds

SOURCES = {"digits": load_digits, "tfds": load_tfds, "folder": load_folder}


def load(
    source: str,
    *,
    name: str = "",
    data_dir: str = "",
    image_size: int = 0,
    memory_limit_mb: int = 4096,
) -> Dataset:
    """Loads a data set.

    Args:
      source: "digits", "tfds" or "folder".
      name: For "tfds" the set, such as "cifar10"; for "folder" an optional name for tables.
      data_dir: For "tfds" the directory of prepared sets, for "folder" the directory that holds
        train and test.
      image_size: 0 takes images as they are (digits: 16); otherwise the shorter side is resized to
        it (pixels, bilinear) and the centre square cropped.
      memory_limit_mb: Up to this many MiB of decoded images are held in memory; a larger set is
        decoded whenever a batch is taken.

    Returns:
      The dataset.

    Raises:
      ValueError: The source is unknown, a number is negative, or the set cannot be loaded; the
        message says what was expected and what to do.

    >>> dataset = load("digits")
    >>> dataset.image_shape, len(dataset.train), len(dataset.test)
    ((16, 16, 1), 1442, 355)
    """
    if source not in SOURCES:
        raise ValueError(
            f"data source: expected one of {sorted(SOURCES)}, got {source!r}: correct it"
        )
    for key, value in (("image_size", image_size), ("memory_limit_mb", memory_limit_mb)):
        if value < 0:
            raise ValueError(f"{key}: expected 0 or more, got {value}: correct it")
    return SOURCES[source](name, data_dir, image_size, memory_limit_mb)
