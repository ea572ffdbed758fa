"""TFDS image-classification sets, read from a prepared array_record directory without TensorFlow."""

import contextlib
import dataclasses
import os
import pathlib
import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np

from at_jax import paths
from at_jax.data.dataset import Dataset
from at_jax.data.decoding import assemble, check_sizes
from at_jax.data.load_options import LoadOptions
from at_jax.data.prepare import DEFAULT_DATA_DIR, FILE_FORMAT, archive_names, closest, file_formats
from at_jax.data.tfds.boxes import check_box
from at_jax.data.tfds.examples import checked, examples_of, first_label
from at_jax.data.tfds.safety import check_metadata
from at_jax.errors import UserError, listed, one_line

__all__ = ["load_tfds"]


def load_tfds(options: LoadOptions) -> Dataset:
    """Load a TFDS set by name, such as "cifar10" or "imagenette/160px-v2".

    Nothing is downloaded. The set must be prepared in `data_dir`, by ``make data DATASET=<name>`` or by
    your own builder that wrote array_record. The splits are `train` and `test`. If there is no test
    split, or its labels are withheld (-1, as in imagenet2012), `validation` is used.

    Args:
      options: the name may have a configuration and a version ("name/config:1.0.0"); an empty data_dir
        means ~/tensorflow_datasets_array_record.

    Returns:
      The data set, with images uint8 ``(N, H, W, C)``.

    Raises:
      UserError: if the name is unknown, or the set is not prepared, is in a format that cannot be read,
        has no image and label, lacks a split, or has images of different sizes.
    """
    name = options.name
    if not name:
        raise UserError(
            "data source 'tfds': expected the name of a set, got none: set --config.data.name, for "
            "example to cifar10"
        )
    path = paths.absolute(options.data_dir or DEFAULT_DATA_DIR)
    if paths.scheme(path):
        raise UserError(
            f"data set {name!r}: expected a local data.data_dir, which array_record can read, got {path}: "
            "copy the directory to this machine"
        )
    data_dir = os.path.abspath(path)
    check_sizes(options.image_size)
    with _quiet():
        check_metadata(data_dir, name)
        builder = _open(name, data_dir)
        _check_prepared(builder, name, data_dir)
        keys = _image_and_label(builder, name)
        check_box(builder, name, options.crop)
        names = ("train", _evaluation_split(builder, name, keys))
        splits = {each: examples_of(builder, name, each, keys, options) for each in names}
        (train, test), notes = checked(builder, name, splits, options)
        classes = builder.info.features[keys[1]].names
        limit, streams = options.memory_limit_mb, options.streams_train
        dataset = assemble(name, train, test, classes, limit, streams_train=streams)
        return dataclasses.replace(dataset, resize=options.resize, notes=tuple(notes))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the hints of TFDS (a folder without metadata, a faster decoder)."""
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _open(name: str, data_dir: str) -> Any:
    import tensorflow_datasets as tfds

    try:
        # data_dir may also be the directory of the set itself, of any builder.
        if (pathlib.Path(data_dir) / "dataset_info.json").exists():
            builder = tfds.builder_from_directory(data_dir)
            if builder.name == name.partition("/")[0].partition(":")[0]:
                return builder
            raise UserError(f"{data_dir} holds {builder.name!r}")
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        prepared = _prepared_names(data_dir)
        known = [*prepared, *tfds.list_builders(with_community_datasets=False)]
        folder = f"there is no folder {name!r}; " if "/" in name and not os.path.isdir(name) else ""
        raise UserError(
            f"data set {name!r}: expected a name in TFDS or a set prepared in {data_dir} (there: "
            f"{listed(prepared)}), got neither: {folder}{closest(name, known)}"
        ) from error
    # TFDS raises several types for an unknown name, configuration or version, and for builders that
    # cannot be opened without TensorFlow.
    except (ValueError, AssertionError, ImportError) as error:
        reason = one_line(error, 300)
        raise UserError(
            f"data set {name!r}: expected a TFDS image-classification set, written "
            f"name/config:version, got: {reason}: change data.name or data.data_dir"
        ) from error


def _prepared_names(data_dir: str) -> list[str]:
    if not os.path.isdir(data_dir):
        return []
    return sorted(e.name for e in os.scandir(data_dir) if e.is_dir() and e.name != "downloads")


def _check_prepared(builder: Any, name: str, data_dir: str) -> None:
    if not builder.is_prepared():
        archives = listed(archive_names(builder), "its archives")
        place = shlex.quote(data_dir)
        raise UserError(
            f"data set {name!r}: expected it prepared in {builder.data_path}, got no such set: run "
            f"`at-jax data --dataset={name} --data_dir={place}` to download it, or in a clone "
            f"`make data DATASET={name} DATA_DIR={place}`; add --manual_dir=DIR (MANUAL_DIR=DIR) to read "
            f"{archives} from a directory instead"
        )
    formats = file_formats(builder)
    if FILE_FORMAT not in formats:
        why = {
            "tfrecord": "which only TensorFlow reads",
            "parquet": "TFDS 4.9.10 drops rows when it writes it",
        }.get(formats[0] if formats else "", "which has no random access")
        raise UserError(
            f"data set {name!r}: expected array_record files in {builder.data_path}, got "
            f"{listed(formats, 'no format')} ({why}): prepare it again in another directory, "
            f"`at-jax data --dataset={name} --data_dir=...`"
        )


def _image_and_label(builder: Any, name: str) -> tuple[str, str]:
    """Return the names of the image and the label feature."""
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
    found = listed(f"{key} ({type(feature).__name__})" for key, feature in sorted(features.items()))
    raise UserError(
        f"data set {name!r}: expected the features image (Image of uint8) and label (ClassLabel), "
        f"got {found}: choose an image-classification set"
    )


def _evaluation_split(builder: Any, name: str, keys: tuple[str, str]) -> str:
    for split in ("test", "validation"):
        if split in builder.info.splits and first_label(builder, split, keys) >= 0:
            return split
    raise UserError(
        f"data set {name!r}: expected a labeled split test or validation, got "
        f"{listed(sorted(builder.info.splits))}: choose another set, or store its images as an image "
        "folder (data.source=folder)"
    )
