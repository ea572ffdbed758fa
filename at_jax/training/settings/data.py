"""Config keys of the ``data`` section."""

import dataclasses
from collections.abc import Sequence

from at_jax.options import between, items, one_of, option

__all__ = ["DataSettings", "is_of_unit_range"]

# Rules that other sections share.
SEEDS = between(0, 2**32 - 1, "from 0 to 2**32 - 1")
IMAGES = between(0, 2**31 - 1)
MEANS = items(between(0, 255), "numbers from 0 to 255")
STDS = items(between(0.1, 255), "numbers from 0.1 to 255")


def is_of_unit_range(mean: Sequence[float], std: Sequence[float]) -> bool:
    """Whether a normalization is one of pixels in 0..1, as in PyTorch. Mean 0 and std 1 change no pixel.

    >>> is_of_unit_range((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), is_of_unit_range((0,), (1,))
    (True, False)
    """
    return max((*mean, *std), default=2) <= 1 and any(0 < x < 1 for x in mean)


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Data set, choice of images, and augmentation."""

    source: str = option(
        "digits",
        "digits (bundled), tfds (needs name) or folder (needs data_dir).",
        one_of("digits", "tfds", "folder"),
    )
    name: str = option("", "TFDS name, such as cifar10 or imagenette/160px-v2.")
    data_dir: str = option(
        "",
        "Directory of prepared TFDS sets (empty: ~/tensorflow_datasets_array_record), or image folder, "
        "which may be in gs:// or s3://.",
    )
    image_size: int = option(
        0, "Height and width to resize to, in pixels; 0: no resizing.", between(0, 4096)
    )
    resize: int = option(
        0,
        "Length of the shorter side, in pixels, before evaluation crops the center square of image_size; "
        "0: image_size, and 8/7 of it with random_resized_crop (256 for 224).",
        between(0, 8192),
    )
    crop: str = option(
        "",
        "Bounding-box feature of a TFDS set to which each image is cropped first, such as bbox of "
        "caltech_birds2011; empty: none.",
    )
    memory_limit_mb: int = option(
        4096,
        "Limit of decoded images in memory, in MiB; larger sets are streamed: decoded during training.",
        between(0, 2**30),
    )
    workers: int = option(
        0,
        "Processes that decode streamed images; 0: one per CPU core, -1: threads.",
        between(-1, 256),
    )
    skip_corrupt: bool = option(False, "Skip images that cannot be read, and count them.")
    train_examples: int = option(
        0, "Labeled images for the student, the same number per class; 0: all.", IMAGES
    )
    epoch_examples: int = option(
        0,
        "Images per epoch; 0: each image once. A larger number repeats images, for longer epochs with few "
        "labels.",
        IMAGES,
    )
    drop_last: bool = option(
        True,
        "Drop the images of an epoch that do not fill a batch. False: they form a smaller last batch.",
    )
    validation_examples: int = option(
        0,
        "Training images to hold out and evaluate on instead of the test set; 0: none.",
        IMAGES,
    )
    test_fraction: float = option(
        0.2,
        "Fraction of each class in the test set of an image folder without train and test.",
        between(0.001, 0.999),
    )
    split_seed: int = option(
        0,
        "Seed of train_examples, validation_examples and test_fraction; not the run's seed.",
        SEEDS,
    )
    allow_changes: bool = option(False, "Resume even if images were added, removed or renamed.")
    order_seed: int = option(
        -1,
        "Seed of data order, augmentation, dropout and random terms; -1: the run's seed.",
        between(-1, 2**32 - 1),
    )
    mean: tuple = option((), "Mean per channel, in 0..255; empty: of the training set.", MEANS)
    std: tuple = option(
        (), "Standard deviation per channel, in 0..255; empty: of the training set.", STDS
    )
    augmentation: str = option(
        "crop",
        "Random crop of training images: crop (after padding, for small images), or random_resized_crop (8 "
        "to 100 % of the area, resized to image_size, for photographs).",
        one_of("crop", "random_resized_crop"),
    )
    pad: int = option(
        4,
        "Pixels of padding before the random crop (augmentation crop); 0: no crop.",
        between(0, 1024),
    )
    pad_mode: str = option(
        "reflect",
        "Padding: reflect, as in the authors' code, or zero (black), as in RepDistiller.",
        one_of("reflect", "zero"),
    )
    mirror: bool = option(True, "Mirror half of the images.")
    color_jitter: float = option(
        0.0,
        "Multiply brightness, contrast and saturation each by a random factor from 1 - color_jitter to "
        "1 + color_jitter; 0: none.",
        between(0, 1),
    )
