"""TFDS image-classification sets, read from a prepared array_record directory without TensorFlow."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from at_jax.data.dataset import Dataset
from at_jax.data.decoding import Examples, as_array, assemble, to_square
from at_jax.data.prepare import DEFAULT_DATA_DIR, FILE_FORMAT, archive_names, closest, file_formats


def load_tfds(
    name: str, data_dir: str = "", image_size: int = 0, memory_limit_mb: int = 4096
) -> Dataset:
    """Loads a TFDS set by name, such as "cifar10" or "imagenette/160px-v2".

    Nothing is downloaded: the set must lie prepared in `data_dir`, by `make data DATASET=<name>` or
    by a builder of your own that wrote array_record. The splits are `train` and `test`; where there
    is no test split, or its labels are withheld (-1, as in imagenet2012), `validation` stands in.

    Args:
      name: Name, optionally with configuration and version ("name/config:1.0.0").
      data_dir: Directory of prepared sets; empty means ~/tensorflow_datasets_array_record.
      image_size: 0 takes images as they are, all of one size; otherwise the shorter side is resized
        to it (pixels, bilinear) and the centre square cropped.
      memory_limit_mb: Up to this many MiB of decoded images are held in memory.

    Returns:
      The dataset; its images are uint8 (N, H, W, C).

    Raises:
      ValueError: The name is unknown, the set is not prepared, lies in a format that cannot be read,
        has no image and label, lacks a split, or its images differ in size.
    """
    if not name:
        raise ValueError(
            "data source 'tfds': expected the name of a set, got none: give one, such as cifar10"
        )
    data_dir = os.path.abspath(os.path.expanduser(data_dir or DEFAULT_DATA_DIR))
    with _quiet():
        builder = _open(name, data_dir)
        _check_prepared(builder, name, data_dir)
        keys = _image_and_label(builder, name)
        train = _examples(builder, name, "train", keys, image_size)
        test = _evaluation_examples(builder, name, keys, image_size)
        return assemble(name, train, test, builder.info.features[keys[1]].names, memory_limit_mb)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS's hints (a folder without metadata, a faster decoder) off the terminal."""
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _open(name: str, data_dir: str):
    import tensorflow_datasets as tfds

    try:
        # data_dir may also be the set's own directory, whatever its builder.
        if (pathlib.Path(data_dir) / "dataset_info.json").exists():
            builder = tfds.builder_from_directory(data_dir)
            if builder.name == name.partition("/")[0].partition(":")[0]:
                return builder
            raise ValueError(f"{data_dir} holds {builder.name!r}")
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        prepared = _prepared_names(data_dir)
        known = [*prepared, *tfds.list_builders(with_community_datasets=False)]
        raise ValueError(
            f"data set {name!r}: expected a name TFDS knows or a set prepared in {data_dir} (there: "
            f"{', '.join(prepared) or 'none'}), got neither: {closest(name, known)}"
        ) from error
    # TFDS tells a wrong configuration, version or spelling, and builders that need TensorFlow to be
    # opened at all, by several types.
    except (ValueError, AssertionError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"data set {name!r}: expected a TFDS image-classification set, written "
            f"name/config:version, got: {reason}: correct the name or the directory"
        ) from error


def _prepared_names(data_dir: str) -> list[str]:
    if not os.path.isdir(data_dir):
        return []
    return sorted(e.name for e in os.scandir(data_dir) if e.is_dir() and e.name != "downloads")


def _check_prepared(builder, name: str, data_dir: str) -> None:
    if not builder.is_prepared():
        archives = ", ".join(archive_names(builder)) or "its archives"
        raise ValueError(
            f"data set {name!r}: expected it prepared in {builder.data_path}, got no such set: run "
            f"`make data DATASET={name} DATA_DIR={data_dir}`, which downloads it, or reads "
            f"{archives} with MANUAL_DIR=<the directory you placed it in>"
        )
    formats = file_formats(builder)
    if FILE_FORMAT not in formats:
        why = {
            "tfrecord": "which only TensorFlow reads",
            "parquet": "of which TFDS 4.9.10 drops rows when it writes",
        }.get(formats[0] if formats else "", "which cannot be read at random")
        raise ValueError(
            f"data set {name!r}: expected array_record files in {builder.data_path}, got "
            f"{', '.join(formats) or 'no format'} ({why}): prepare it again in another directory, "
            f"`make data DATASET={name} DATA_DIR=...`"
        )


def _image_and_label(builder, name: str) -> tuple[str, str]:
    """Returns the names of the features that hold the image and the label."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    supervised = builder.info.supervised_keys
    for image, label in filter(None, (supervised and supervised[:2], ("image", "label"))):
        if not isinstance(image, str) or not isinstance(label, str):
            continue  # supervised keys may be nested
        is_image = image in features and isinstance(features[image], tfds.features.Image)
        is_label = label in features and isinstance(features[label], tfds.features.ClassLabel)
        if is_image and is_label and features[image].np_dtype == np.uint8:
            return image, label
    found = ", ".join(
        f"{key} ({type(feature).__name__})" for key, feature in sorted(features.items())
    )
    raise ValueError(
        f"data set {name!r}: expected the features image (Image of uint8) and label (ClassLabel), "
        f"got {found}: take an image-classification set"
    )


def _evaluation_examples(builder, name: str, keys: tuple[str, str], image_size: int) -> Examples:
    for split in ("test", "validation"):
        if split in builder.info.splits:
            examples = _examples(builder, name, split, keys, image_size)
            ((_, label),) = examples.read(np.array([0]))
            if label >= 0:
                return examples
    raise ValueError(
        f"data set {name!r}: expected a labelled split test or validation, got "
        f"{sorted(builder.info.splits)}: take a set that has one, or lay its images out as a folder"
    )


def _examples(builder, name: str, split: str, keys: tuple[str, str], image_size: int) -> Examples:
    import tensorflow_datasets as tfds

    image_key, label_key = keys
    if split not in builder.info.splits:
        raise ValueError(
            f"data set {name!r}: expected a split {split!r}, got {sorted(builder.info.splits)}: take "
            "a set that has one"
        )
    source = builder.as_data_source(split)
    _check_readable(source, name, builder)

    def read(indices: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        for example in _at(source, indices):
            yield _to_size(example[image_key], image_size), int(example[label_key])

    def labels() -> np.ndarray:
        # Skipping the images makes this ten times as fast as decoding them.
        undecoded = {image_key: tfds.decode.SkipDecoding()}
        fast = builder.as_data_source(split, decoders=undecoded)
        chunks = np.array_split(np.arange(len(fast)), max(1, len(fast) // 1024))
        return np.array([example[label_key] for chunk in chunks for example in _at(fast, chunk)])

    return Examples(len(source), read, labels, lambda index: f"example {index} of {name} {split}")


def _check_readable(source, name: str, builder) -> None:
    try:
        source[0]
    # array_record raises RuntimeError and IndexError, decoders what they like.
    except Exception as error:
        raise ValueError(
            f"data set {name!r}: expected readable array_record files in {builder.data_path}, got "
            f"{type(error).__name__} ({error}): remove that directory and prepare the set again"
        ) from error


def _at(source, indices: np.ndarray) -> list[dict]:
    """Returns the examples at `indices`."""
    indices = indices.tolist()
    try:
        return source.__getitems__(indices)  # twice as fast as one by one
    except TypeError:  # tfds.testing.mock_data has single examples only
        return [source[index] for index in indices]


def _to_size(image: np.ndarray, image_size: int) -> np.ndarray:
    from PIL import Image

    if image_size == 0 or image.shape[:2] == (image_size, image_size):
        return image
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return as_array(to_square(picture, image_size))
