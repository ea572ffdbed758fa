"""A folder of images as a data set: ``<dir>/{train,test}/<class>/``, with images at any depth."""

import dataclasses
import os
import pathlib
import time
from collections.abc import Sequence

import numpy as np

from at_jax import paths
from at_jax.data.crops import as_array
from at_jax.data.dataset import Dataset
from at_jax.data.decoding import assemble, check_held, check_sizes, is_held
from at_jax.data.files.formats import claims_image
from at_jax.data.files.inspection import (
    Inspection,
    bit_depth,
    check_shapes,
    inspect,
    is_long,
    may_be_image,
    remember_held,
)
from at_jax.data.files.listing import skipped_line
from at_jax.data.files.reading import FIX_OF_FOLDER, MAX_DEPTH, read_image
from at_jax.data.files.verified import Verified
from at_jax.data.folder.class_files import LAYOUT, ClassFiles, list_classes, split_files
from at_jax.data.folder.reader import examples_of
from at_jax.data.load_options import LoadOptions
from at_jax.errors import UserError, listed, printable

__all__ = ["load_folder"]

_Inspected = tuple[ClassFiles, np.ndarray]  # files, and an entry of each: see Inspection


def load_folder(options: LoadOptions) -> Dataset:
    """Load ``<data_dir>/{train,test}/<class>/``, with JPEG, PNG, WebP, BMP and GIF files at any depth.

    Without ``test``, the test set is in ``val``, ``valid`` or ``validation``. Without splits,
    ``<data_dir>/<class>/`` is split: the part of each class that becomes the test set is a function of the
    seed and of the names of the files.

    Classes are the sorted names of the directories. Files are recognized by content. Others are skipped,
    and counted in the notes of the data set; hidden ones are ignored. Every image is read before
    training. The images are upright RGB: EXIF orientation is applied, gray is repeated, transparency
    becomes white, and 16-bit values are scaled by the range of the training images.

    Args:
      options: an empty name takes that of the directory.

    Returns:
      The data set, with images uint8 ``(N, H, W, 3)``.

    Raises:
      UserError: if the layout is different, the classes of the splits differ, an image cannot be read,
        images differ in size, or do not fit into memory.
    """
    size = options.image_size
    check_sizes(size, pixel_bytes=7)  # 4 in Pillow, 3 in the array
    root = _root(options.data_dir)
    name = options.name or printable(paths.resolve(root).name)
    parts = list_classes(root)
    decode = _decodes(parts, options)
    inspected, notes = [], []
    if (evaluated := parts[-1].directory.name) != "test" and len(parts) == 2:
        notes.append(f"no class directories in test: the images of {evaluated} are the test set")
    notes += _shared_directories(parts)
    if size and not options.streams_train:
        # Those with the suffix of an image: files of other names are counted when they are read.
        count = sum(claims_image(file.path) for part in parts for file in part.files)
        if is_held(count, (size, size, 3), options.memory_limit_mb):
            check_held(name, count, (size, size, 3))
    for part in parts:
        verified = Verified(part.directory)
        found = inspect(part.files, verified, decode=decode, needs_size=size == 0, name=name)
        kept, lines = _leave_out(part, found, options.skip_corrupt)
        inspected.append(kept)
        notes += lines
    splits, lines = _split(inspected, options)
    (train_files, train_entries), (test_files, test_entries) = splits
    # Without 16-bit images to train on, those that are evaluated give the range.
    depth = bit_depth(train_entries["largest"]) or bit_depth(test_entries["largest"])
    notes += [*lines, *([f"the values of 16-bit images have {depth} bits"] if depth else [])]
    depth = depth or MAX_DEPTH
    train, test = (examples_of(files, options, depth) for files in (train_files, test_files))
    if not size:
        check_shapes(train, train_entries)
        check_shapes(test, test_entries)
    began = time.monotonic()
    classes, limit = train_files.class_names, options.memory_limit_mb
    dataset = assemble(name, train, test, classes, limit, streams_train=options.streams_train)
    if not decode and is_long(began):
        for part, entries in inspected:
            remember_held(Verified(part.directory), entries, None if size else dataset.image_shape)
    return dataclasses.replace(dataset, bit_depth=depth, resize=options.resize, notes=tuple(notes))


def _shared_directories(parts: Sequence[ClassFiles]) -> list[str]:
    """A note if directories of training images are evaluated too, through links."""
    if len(parts) == 1 or paths.scheme(parts[0].directory):
        return []
    trained, evaluated = (part.directory for part in parts)
    shared = [
        printable(name)
        for name in parts[0].class_names
        if os.path.realpath(trained / name) == os.path.realpath(evaluated / name)
    ]
    return (
        [f"the test images are training images, through a link: {listed(shared)}"] if shared else []
    )


def _split(inspected: list[_Inspected], options: LoadOptions) -> tuple[list[_Inspected], list[str]]:
    """Split the files of a folder without train and test; with a note."""
    if len(inspected) == 2:
        return inspected, []
    ((files, entries),) = inspected
    chosen, line = split_files(files, options.test_fraction, options.split_seed)
    return [(files.select(indices), entries[indices]) for indices in chosen], [line]


def _root(data_dir: str) -> pathlib.Path:
    if not data_dir:
        raise UserError(
            f"data source 'folder': expected a directory laid out as {LAYOUT}, got none: set "
            "--config.data.data_dir=DIR, or data=DIR after the colon of --config=configs/folder.py:data=DIR"
        )
    return paths.reachable(data_dir)


def _decodes(splits: Sequence[ClassFiles], options: LoadOptions) -> bool:
    """Whether images are decoded when they are inspected. Images in memory are decoded only once, later."""
    if options.skip_corrupt or options.streams_train:
        return True
    shape = (options.image_size, options.image_size, 3)
    if not options.image_size:
        first = next(filter(may_be_image, splits[0].files), None)
        if first is None:
            return False
        shape = as_array(read_image(first.path, fix=FIX_OF_FOLDER)).shape
    return not is_held(sum(len(split.files) for split in splits), shape, options.memory_limit_mb)


def _leave_out(
    split: ClassFiles, found: Inspection, skip_corrupt: bool
) -> tuple[_Inspected, list[str]]:
    """Leave out files that are no images, and those that cannot be read, or raise for these.

    Returns:
      The others, at least one of each class, and notes.
    """
    images = len(split.files) - len(found.others)
    errors = [found.errors[index] for index in sorted(found.errors)]
    if errors and not skip_corrupt:
        if len(errors) == 1:
            raise errors[0]
        where = printable(str(split.directory))
        raise UserError(f"{len(errors):,} of {images:,} images in {where}: {errors[0]}")
    split.skipped.update(found.others.values())
    part, notes = split.directory.name, []
    if line := skipped_line(split.skipped):
        notes.append(f"{part}: {line}")
    if errors:
        split.skipped["unreadable"] += len(errors)
        notes.append(
            f"{part}: skipped {len(errors):,} of {images:,} images, which cannot be read "
            f"(data.skip_corrupt); the first: {str(errors[0]).removesuffix(f': {FIX_OF_FOLDER}')}"
        )
    kept = np.delete(np.arange(len(split.files)), [*found.others, *found.errors])
    files = split.select(kept)
    files.check_classes()
    return (files, found.entries[kept]), notes
