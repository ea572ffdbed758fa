"""The embedded default: scikit-learn's 1,797 real 8x8 handwritten digits (UCI optdigits)."""

import importlib.util
import pathlib

import numpy as np

from at_jax.data.dataset import Dataset, Split, channel_statistics
from at_jax.data.decoding import as_array, to_square

_DEFAULT_SIZE = 16  # pixels; smaller images do not survive the networks' strides
_TEST_EVERY = 5


def load_digits(
    name: str = "", data_dir: str = "", image_size: int = 0, memory_limit_mb: int = 0
) -> Dataset:
    """Loads the digits, grey, without importing scikit-learn (which takes two seconds).

    The split is fixed: of each class, in the file's order, every fifth image is a test image. That
    is 1,442 training and 355 test images, nearly the same share of every class.

    Args:
      name: Empty or "digits".
      data_dir: Unused; the images come with scikit-learn.
      image_size: Side in pixels the 8x8 images are brought to (bilinear); 0 means 16.
      memory_limit_mb: Unused; the set is held in memory.

    Returns:
      The dataset; its images are uint8 (N, image_size, image_size, 1).

    Raises:
      ValueError: scikit-learn is not installed, or `name` is another set's.
    """
    del data_dir, memory_limit_mb
    if name not in ("", "digits"):
        raise ValueError(
            f"data source 'digits': expected no name, got {name!r}: leave the name empty, or take "
            "the source 'tfds' for a TFDS set"
        )
    table = np.loadtxt(_table_path(), delimiter=",", dtype=np.uint8)  # (N, 65): 64 pixels, label
    pixels, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int32)
    images = _bring_to_size(np.round(pixels * (255 / 16)).astype(np.uint8), image_size)

    is_test = np.zeros(len(labels), bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
    train = Split(images[~is_test], labels[~is_test])
    test = Split(images[is_test], labels[is_test])
    mean, std = channel_statistics(train)
    return Dataset("digits", train, test, tuple("0123456789"), mean, std)


def _bring_to_size(images: np.ndarray, image_size: int) -> np.ndarray:
    """Resizes uint8 (N, 8, 8) to (N, size, size, 1)."""
    from PIL import Image

    size = image_size or _DEFAULT_SIZE
    return np.stack([as_array(to_square(Image.fromarray(image), size)) for image in images])


def _table_path() -> pathlib.Path:
    spec = importlib.util.find_spec("sklearn")
    path = spec and spec.origin and pathlib.Path(spec.origin).parent / "datasets/data/digits.csv.gz"
    if not path or not path.exists():
        raise ValueError(
            f"data source 'digits': expected the digits that scikit-learn bundles, got "
            f"{f'no file {path}' if path else 'no scikit-learn'}: pip install scikit-learn"
        )
    return path
