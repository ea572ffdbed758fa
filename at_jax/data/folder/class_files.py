"""The layout of an image folder: two splits, a directory for each class, images at any depth in it."""

import dataclasses
import hashlib
import os
import pathlib

import numpy as np

from at_jax.data.files.formats import READABLE
from at_jax.data.files.listing import (
    File,
    Skipped,
    class_directories,
    files_below,
    normal,
    skipped_line,
)
from at_jax.errors import UserError, listed, printable

__all__ = ["LAYOUT", "ClassFiles", "list_classes", "split_files"]

LAYOUT = "<dir>/{train,test}/<class>/<images>"
# The evaluated images, in the first of these directories that exists.
_EVALUATED = ("test", "val", "valid", "validation")
# Directories of these names are parts of a data set, not classes.
_PARTS = {"train", *_EVALUATED, "dev", "eval", "evaluation", "testing", "training"}


@dataclasses.dataclass
class ClassFiles:
    """Files of one split, in the order of the data set.

    Attributes:
      directory: train, test or val, or the one that contains the classes.
      class_names: sorted.
      files: that were listed.
      labels: int32, of the files.
      skipped: what was left out.
    """

    directory: pathlib.Path
    class_names: tuple[str, ...]
    files: list[File]
    labels: np.ndarray
    skipped: Skipped

    def select(self, indices: np.ndarray) -> "ClassFiles":
        """Return the files at some indices."""
        files = [self.files[index] for index in indices.tolist()]
        return dataclasses.replace(self, files=files, labels=self.labels[indices])

    def check_classes(self) -> None:
        """Raise if a class has no image.

        Raises:
          UserError: naming its directory, and what was left out.
        """
        empty = np.setdiff1d(np.arange(len(self.class_names)), self.labels)
        if len(empty):
            directory = printable(str(self.directory / self.class_names[empty[0]]))
            found = skipped_line(self.skipped) or "none"
            raise UserError(
                f"image folder {directory}: expected images ({READABLE}), got none ({self.directory.name}: "
                f"{found}): add some, or remove this class from every split"
            )


def list_classes(root: pathlib.Path) -> list[ClassFiles]:
    """List the files of the splits train and test (or val), which must have the same classes.

    Returns:
      Both splits; a single one, which is not split yet, if the classes are directly in `root`.

    Raises:
      UserError: if the layout is different, the classes differ, or a class has no file.
    """
    if _is_not_split(root):
        left_out = Skipped()
        # An image and a link to it could be on both sides of the split.
        return [_list_split(root, _classes(root, left_out), left_out, unique=True)]
    _check_parts(root)
    there = [name for name in _EVALUATED if (root / name).is_dir()]
    # A test set without labels has no class directories.
    labeled = [name for name in there if class_directories(root / name, Skipped())]
    test = [*labeled, *there, "test"][0]
    skipped = {split: Skipped() for split in ("train", test)}
    classes = {split: _classes(root / split, skipped[split]) for split in skipped}
    if list(classes["train"]) != list(classes[test]):
        only = {
            split: listed(printable(each) for each in classes[split] if each not in classes[other])
            for split, other in (("train", test), (test, "train"))
        }
        raise UserError(
            f"image folder {printable(str(root))}: expected the same classes in train and {test}, got "
            f"only in train: {only['train']}, only in {test}: {only[test]}: rename or add these directories"
        )
    return [_list_split(root / each, classes[each], skipped[each]) for each in skipped]


def _is_not_split(root: pathlib.Path) -> bool:
    """Whether a directory contains classes, and no directory whose name is that of a split."""
    if not root.is_dir():
        return False
    names = {name.lower() for name in class_directories(root, Skipped())}
    return len(names) > 1 and not names & _PARTS


def _check_parts(root: pathlib.Path) -> None:
    """Raise if classes are next to a directory that has the name of a part, and there is no part train."""
    if not root.is_dir() or (
        (root / "train").is_dir() and class_directories(root / "train", Skipped())
    ):
        return
    names = class_directories(root, Skipped())
    parts = [name for name in names if name.lower() in _PARTS]
    if parts and (others := [printable(name) for name in names if name not in parts]):
        raise UserError(
            f"image folder {printable(str(root))}: expected classes, or directories train and test, got "
            f"{listed(others)} next to {listed(parts)}, the name of a split: rename it, or use {LAYOUT}"
        )


def split_files(
    files: ClassFiles, test_fraction: float, seed: int
) -> tuple[tuple[np.ndarray, np.ndarray], str]:
    """Choose the training and the test images of each class.

    The choice is a function of the seed and of the names of the files. It changes little when files are
    added.

    Args:
      files: of all classes.
      test_fraction: part of each class that is tested on, at least one image and not all of them.
      seed: at least 0.

    Returns:
      Ascending indices of the training and of the test images, and a line that says so.

    Raises:
      UserError: if a class has only one image.
    """
    start = len(os.path.join(files.directory, ""))
    names = (normal(file.path[start:]) for file in files.files)
    digests = (hashlib.blake2b(os.fsencode(f"{seed}/{each}"), digest_size=8) for each in names)
    place = np.array([int.from_bytes(each.digest(), "big") for each in digests], np.uint64)
    test = []
    for label, name in enumerate(files.class_names):
        of_class = np.flatnonzero(files.labels == label)
        if len(of_class) < 2:
            raise UserError(
                f"image folder {printable(str(files.directory / name))}: expected at least 2 images, one "
                "to train and one to test on, got 1: add images, or make directories train and test"
            )
        count = min(len(of_class) - 1, max(1, round(test_fraction * len(of_class))))
        test.append(of_class[np.argsort(place[of_class], kind="stable")[:count]])
    tested = np.sort(np.concatenate(test))
    trained = np.setdiff1d(np.arange(len(files.files)), tested)
    line = (
        f"no directories train and test: {len(tested):,} of {len(files.files):,} images are the test set "
        f"(data.test_fraction={test_fraction:g}, data.split_seed={seed})"
    )
    return (trained, tested), line


def _classes(split_dir: pathlib.Path, skipped: Skipped) -> dict[str, str]:
    """Return the names of the classes, sorted, to the names of their directories."""
    if not split_dir.parent.is_dir():
        what = "is a file" if split_dir.parent.is_file() else "does not exist"
        where = "" if split_dir.is_absolute() else f" (in {pathlib.Path.cwd()})"
        raise UserError(
            f"image folder {printable(str(split_dir.parent))} {what}{where}: "
            f"set --config.data.data_dir=DIR to one laid out as {LAYOUT} or <dir>/<class>/<images>"
        )
    if not split_dir.is_dir():
        raise UserError(
            f"image folder {printable(str(split_dir.parent))}: expected {LAYOUT}, got no directory "
            f"{printable(str(split_dir))}{' (or val)' if split_dir.name == 'test' else ''}: "
            "create it, or set --config.data.data_dir=DIR to the directory that contains train and test, "
            "or to one that contains the classes, which is split"
        )
    found = class_directories(split_dir, skipped)
    if len(found) < 2:
        raise UserError(
            f"image folder {printable(str(split_dir))}: expected at least two class directories "
            f"({LAYOUT}), got {listed(map(printable, found))}: put the images of each class into a "
            "directory with its name"
        )
    for names in found.values():
        if len(names) > 1:
            raise UserError(
                f"image folder {printable(str(split_dir))}: expected each class once, got {names[0]!a} and "
                f"{names[1]!a}, which are the same text in two Unicode forms: merge these directories"
            )
    return {name: names[0] for name, names in found.items()}


def _list_split(
    split_dir: pathlib.Path, classes: dict[str, str], skipped: Skipped, *, unique: bool = False
) -> ClassFiles:
    of_class = [
        files_below(split_dir / directory, skipped, unique=unique) for directory in classes.values()
    ]
    counts = [len(files) for files in of_class]
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    files = [file for files in of_class for file in files]
    split = ClassFiles(split_dir, tuple(classes), files, labels, skipped)
    split.check_classes()
    return split
