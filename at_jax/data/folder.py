"""A folder of images as a data set: ``<dir>/{train,test}/<class>/``, with images at any depth."""

import dataclasses
import os
import pathlib
import time
from collections.abc import Iterator, Sequence

import numpy as np

from at_jax import paths
from at_jax.data.class_files import LAYOUT, ClassFiles, list_classes
from at_jax.data.dataset import Dataset
from at_jax.data.decoding import Examples, as_array, assemble, check_sizes, is_held, to_square
from at_jax.data.inspection import (
    Inspection,
    bit_depth,
    check_shapes,
    inspect,
    is_long,
    may_be_image,
    remember_held,
    report,
)
from at_jax.data.listing import skipped_line
from at_jax.data.reading import FIX_OF_FOLDER, MAX_DEPTH, read_image
from at_jax.data.verified import Verified
from at_jax.errors import UserError, printable

__all__ = ["load_folder"]


def load_folder(
    name: str = "",
    data_dir: str = "",
    image_size: int = 0,
    memory_limit_mb: int = 4096,
    skip_corrupt: bool = False,
) -> Dataset:
    """Load ``<data_dir>/{train,test}/<class>/``, with JPEG, PNG, WebP, BMP and GIF files at any depth.

    Classes are the sorted names of the directories. Files are recognized by content. Others are skipped,
    and counted in the notes of the data set; hidden ones are ignored. Every image is read before
    training. The images are upright RGB: EXIF orientation is applied, gray is repeated, transparency
    becomes white, and 16-bit values are scaled by the range of the training images.

    Args:
      name: name of the data set; empty takes that of the directory.
      data_dir: directory that contains train and test.
      image_size: 0 keeps the size of the images, which must all be the same. Otherwise the center square
        is resized to this many pixels (bilinear).
      memory_limit_mb: largest size of the decoded images in memory, in MiB.
      skip_corrupt: leave out images that cannot be read, and count them in the notes.

    Returns:
      The data set, with images uint8 ``(N, H, W, 3)``.

    Raises:
      UserError: if the layout is different, the classes of the splits differ, an image cannot be read,
        images differ in size, or do not fit into memory.
    """
    check_sizes(image_size, pixel_bytes=7)  # 4 in Pillow, 3 in the array
    root = _root(data_dir)
    name = name or printable(paths.resolve(root).name)
    splits = list_classes(root)
    decode = _decodes(splits, image_size, memory_limit_mb, skip_corrupt)
    entries, notes = [], []
    for split in splits:
        verified = Verified(split.directory)
        found = inspect(split.files, verified, decode=decode, needs_size=image_size == 0, name=name)
        kept, lines = _leave_out(split, found, skip_corrupt)
        entries.append(found.entries[kept])
        notes += lines
    # Without 16-bit images to train on, those that are evaluated give the range.
    depth = bit_depth(entries[0]["largest"]) or bit_depth(entries[1]["largest"])
    if depth is not None:
        notes.append(f"the values of 16-bit images have {depth} bits")
    depth = depth or MAX_DEPTH
    train, test = (_examples(each, image_size, depth, skip_corrupt) for each in splits)
    if not image_size:
        check_shapes(train, entries[0])
        check_shapes(test, entries[1])
    began = time.monotonic()
    dataset = assemble(name, train, test, splits[0].class_names, memory_limit_mb)
    if not decode and is_long(began):
        for split, each in zip(splits, entries, strict=True):
            shape = None if image_size else dataset.image_shape
            remember_held(Verified(split.directory), each, shape)
    return dataclasses.replace(dataset, bit_depth=depth, notes=tuple(notes))


def _root(data_dir: str) -> pathlib.Path:
    if not data_dir:
        raise UserError(
            f"data source 'folder': expected a directory laid out as {LAYOUT}, got none: set "
            "--config.data.data_dir=DIR, or data=DIR after the colon of --config=configs/folder.py:data=DIR"
        )
    return paths.reachable(data_dir)


def _decodes(
    splits: Sequence[ClassFiles], image_size: int, memory_limit_mb: int, skip_corrupt: bool
) -> bool:
    """Whether images are decoded when they are inspected. Images in memory are decoded only once, later."""
    if skip_corrupt:
        return True
    shape = (image_size, image_size, 3)
    if not image_size:
        first = next(filter(may_be_image, splits[0].files), None)
        if first is None:
            return False
        shape = as_array(read_image(first.path, fix=FIX_OF_FOLDER)).shape
    return not is_held(sum(len(split.files) for split in splits), shape, memory_limit_mb)


def _leave_out(
    split: ClassFiles, found: Inspection, skip_corrupt: bool
) -> tuple[np.ndarray, list[str]]:
    """Leave out files that are no images, and those that cannot be read, or raise for these.

    Returns:
      The indices that are kept, and notes.
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
    split.keep(kept)
    return kept, notes


def _examples(split: ClassFiles, image_size: int, depth: int, skip_corrupt: bool) -> Examples:
    files, labels = [file.path for file in split.files], split.labels
    replaced: set[int] = set()

    def array(index: int) -> np.ndarray:
        return as_array(to_square(read_image(files[index], depth, fix=FIX_OF_FOLDER), image_size))

    def read(indices: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        for index in indices.tolist():
            try:
                yield array(index), labels[index]
            except UserError as error:
                if not skip_corrupt:
                    raise
                other, image = replacement(index, error)
                if index not in replaced:
                    replaced.add(index)
                    report(f"note: {error}; {printable(files[other])} takes its place")
                yield image, labels[index]

    def replacement(index: int, error: UserError) -> tuple[int, np.ndarray]:
        """The next image of the class that can be read: the same one in every epoch and process."""
        same = np.flatnonzero(labels == labels[index])
        for other in np.roll(same, -1 - int(np.searchsorted(same, index))).tolist()[:-1]:
            try:
                return other, array(other)
            except UserError:
                continue
        raise error

    start = len(os.path.join(split.directory, ""))
    return Examples(
        len(files),
        read,
        lambda: labels,
        lambda index: printable(files[index]),
        names=lambda: (file[start:] for file in files),
    )
