"""The default data set: scikit-learn's 1,797 handwritten digits of 8x8 pixels (UCI optdigits)."""

import pathlib

import numpy as np

from at_jax import extras
from at_jax.data.crops import as_array, to_square
from at_jax.data.dataset import Dataset, Split, channel_statistics
from at_jax.data.decoding import check_sizes
from at_jax.data.load_options import LoadOptions
from at_jax.errors import UserError

__all__ = ["load_digits"]

_DEFAULT_SIZE = 16  # pixels; smaller images do not survive the strides of the networks
_TEST_EVERY = 5
_COUNT = 1797


def load_digits(options: LoadOptions) -> Dataset:
    """Load the gray digits, without importing scikit-learn (which takes two seconds).

    The split is fixed: every fifth image of each class, in the order of the file, is a test image.
    This gives 1,442 training and 355 test images, nearly the same share of every class.

    Args:
      options: the name is empty or "digits"; the 8x8 images are resized to the image_size (bilinear), 16 if
        it is 0; the others are not used.

    Returns:
      The data set, with images uint8 ``(N, image_size, image_size, 1)``.

    Raises:
      UserError: if scikit-learn is not installed, ``name`` is the name of another set, or the images do
        not fit into memory.
    """
    name, image_size = options.name, options.image_size
    if name not in ("", "digits"):
        raise UserError(
            f"data source 'digits': expected no name, got {name!r}: leave data.name empty, or use "
            "data.source=tfds for a TFDS set"
        )
    check_sizes(image_size, count=_COUNT)
    table = np.loadtxt(_table_path(), delimiter=",", dtype=np.uint8)  # (N, 65): 64 pixels, label
    pixels, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int32)
    images = _resize(np.round(pixels * (255 / 16)).astype(np.uint8), image_size)

    is_test = np.zeros(len(labels), bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
    train = Split(images[~is_test], labels[~is_test])
    test = Split(images[is_test], labels[is_test])
    mean, std = channel_statistics(train)
    return Dataset("digits", train, test, tuple("0123456789"), mean, std)


def _resize(images: np.ndarray, image_size: int) -> np.ndarray:
    """Resize uint8 (N, 8, 8) to (N, size, size, 1)."""
    from PIL import Image

    size = image_size or _DEFAULT_SIZE
    return np.stack([as_array(to_square(Image.fromarray(image), size)) for image in images])


def _table_path() -> pathlib.Path:
    name = "datasets/data/digits.csv.gz"
    if (path := extras.file_of("sklearn", name, "data source 'digits'")) is None:
        raise UserError(
            f"data source 'digits': the installed scikit-learn has no {name}: install it again"
        )
    return path
