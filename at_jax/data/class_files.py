"""The layout of an image folder: two splits, a directory for each class, images at any depth in it."""

import dataclasses
import pathlib

import numpy as np

from at_jax.data.formats import READABLE
from at_jax.data.listing import File, Skipped, class_directories, files_below, skipped_line
from at_jax.errors import UserError, listed, printable

__all__ = ["LAYOUT", "ClassFiles", "list_classes"]

LAYOUT = "<dir>/{train,test}/<class>/<images>"


@dataclasses.dataclass
class ClassFiles:
    """Files of one split, in the order of the data set.

    Attributes:
      directory: train or test.
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

    def keep(self, indices: np.ndarray) -> None:
        """Leave out all files but those at some indices.

        Raises:
          UserError: if a class has none.
        """
        self.files = [self.files[index] for index in indices.tolist()]
        self.labels = self.labels[indices]
        self.check_classes()

    def check_classes(self) -> None:
        """Raise if a class has no image."""
        empty = np.setdiff1d(np.arange(len(self.class_names)), self.labels)
        if len(empty):
            directory = printable(str(self.directory / self.class_names[empty[0]]))
            found = skipped_line(self.skipped) or "none"
            raise UserError(
                f"image folder {directory}: expected images ({READABLE}), got none ({self.directory.name}: "
                f"{found}): add some or remove the directory"
            )


def list_classes(root: pathlib.Path) -> tuple[ClassFiles, ClassFiles]:
    """List the files of the splits train and test, which must have the same classes.

    Raises:
      UserError: if the layout is different, the classes differ, or a class has no file.
    """
    skipped = {split: Skipped() for split in ("train", "test")}
    classes = {split: _classes(root / split, skipped[split]) for split in skipped}
    if list(classes["train"]) != list(classes["test"]):
        only = {
            split: listed(printable(each) for each in classes[split] if each not in classes[other])
            for split, other in (("train", "test"), ("test", "train"))
        }
        raise UserError(
            f"image folder {printable(str(root))}: expected the same classes in train and test, got only "
            f"in train: {only['train']}, only in test: {only['test']}: rename or add these directories"
        )
    train, test = (_list_split(root / each, classes[each], skipped[each]) for each in skipped)
    return train, test


def _classes(split_dir: pathlib.Path, skipped: Skipped) -> dict[str, str]:
    """Return the names of the classes, sorted, to the names of their directories."""
    if not split_dir.is_dir():
        raise UserError(
            f"image folder {printable(str(split_dir.parent))}: expected {LAYOUT}, got no directory "
            f"{printable(str(split_dir))}: "
            "create it, or set --config.data.data_dir=DIR to the directory that contains train and test"
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


def _list_split(split_dir: pathlib.Path, classes: dict[str, str], skipped: Skipped) -> ClassFiles:
    of_class = [files_below(split_dir / directory, skipped) for directory in classes.values()]
    counts = [len(files) for files in of_class]
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    files = [file for files in of_class for file in files]
    split = ClassFiles(split_dir, tuple(classes), files, labels, skipped)
    split.check_classes()
    return split
