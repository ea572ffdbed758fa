"""A folder of images as a data set: ``<dir>/{train,test}/<class>/*.{jpg,jpeg,png}``."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from at_jax import paths
from at_jax.data.dataset import Dataset
from at_jax.data.decoding import Examples, as_array, assemble, to_square
from at_jax.errors import UserError, listed

__all__ = ["load_folder"]

_SUFFIXES = (".jpg", ".jpeg", ".png")
_LAYOUT = "<dir>/{train,test}/<class>/*.{jpg,jpeg,png}"


def load_folder(
    name: str = "", data_dir: str = "", image_size: int = 0, memory_limit_mb: int = 4096
) -> Dataset:
    """Load ``<data_dir>/{train,test}/<class>/*.{jpg,jpeg,png}``.

    Classes are the sorted names of the directories. Suffixes may have any case. Other files and hidden
    directories are ignored. All images are converted to RGB: gray is repeated, alpha is dropped.

    Args:
      name: name of the data set; empty takes that of the directory.
      data_dir: directory that contains train and test.
      image_size: 0 keeps the size of the images, which must all be the same. Otherwise the shorter
        side is resized to this many pixels (bilinear) and the center square is cropped.
      memory_limit_mb: largest size of the decoded images in memory, in MiB.

    Returns:
      The data set, with images uint8 ``(N, H, W, 3)``.

    Raises:
      UserError: if the layout is different, the classes of the splits differ, an image cannot be read,
        or images differ in size.
    """
    if not data_dir:
        raise UserError(
            f"data source 'folder': expected a directory laid out as {_LAYOUT}, got none: set "
            "--config.data.data_dir=DIR, or data=DIR after the colon of --config=configs/folder.py:data=DIR"
        )
    root = paths.reachable(data_dir)
    classes = {split: _class_names(root / split) for split in ("train", "test")}
    if classes["train"] != classes["test"]:
        only = {
            split: listed(sorted(set(classes[split]) - set(classes[other])))
            for split, other in (("train", "test"), ("test", "train"))
        }
        raise UserError(
            f"image folder {root}: expected the same classes in train and test, got only in train: "
            f"{only['train']}, only in test: {only['test']}: rename or add these directories"
        )
    train, test = (
        _examples(root / split, classes["train"], image_size) for split in ("train", "test")
    )
    return assemble(
        name or paths.resolve(root).name, train, test, classes["train"], memory_limit_mb
    )


def _class_names(split_dir: pathlib.Path) -> list[str]:
    if not split_dir.is_dir():
        raise UserError(
            f"image folder {split_dir.parent}: expected {_LAYOUT}, got no directory {split_dir}: "
            "create it, or set --config.data.data_dir=DIR to the directory that contains train and test"
        )
    names = [name for name in paths.names(split_dir) if not name.startswith(".")]
    names = [name for name in names if (split_dir / name).is_dir()]
    if len(names) < 2:
        raise UserError(
            f"image folder {split_dir}: expected at least two class directories ({_LAYOUT}), got "
            f"{listed(names)}: put the images of each class into a directory with its name"
        )
    return names


def _image_names(class_dir: pathlib.Path) -> list[str]:
    names = [
        name
        for name in paths.names(class_dir)
        if name.lower().endswith(_SUFFIXES) and not name.startswith(".")
    ]
    if not names:
        raise UserError(
            f"image folder {class_dir}: expected images ({', '.join(_SUFFIXES)}), got none: add "
            "some or remove the directory"
        )
    return names


def _examples(split_dir: pathlib.Path, class_names: list[str], image_size: int) -> Examples:
    files: list[str] = []
    labels: list[int] = []
    for label, class_name in enumerate(class_names):
        names = _image_names(split_dir / class_name)
        files += [os.path.join(split_dir, class_name, name) for name in names]
        labels += [label] * len(names)

    def read(indices: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        return ((_read_image(files[i], image_size), labels[i]) for i in indices)

    return Examples(len(files), read, lambda: np.array(labels), lambda index: files[index])


def _read_image(path: str, image_size: int) -> np.ndarray:
    from PIL import Image

    try:
        with paths.parse(path).open("rb") as file, Image.open(file) as image:
            image.load()
            return as_array(to_square(_to_rgb(image), image_size))
    # PIL raises many types for a bad file: OSError, SyntaxError (PNG), ValueError, struct.error ...
    except Exception as error:
        raise UserError(
            f"image {path}: expected a readable JPEG or PNG, got {type(error).__name__} ({error}): "
            "replace or remove the file"
        ) from error


def _to_rgb(image: Any) -> Any:
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit gray, which convert() would clip to white
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == "P":  # a palette may have transparency, for which PIL asks for RGBA
        image = image.convert("RGBA")
    return image.convert("RGB")
