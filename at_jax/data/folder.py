"""A folder of images as a data set: <dir>/{train,test}/<class>/*.{jpg,jpeg,png}."""

import os
import pathlib
from collections.abc import Iterator

import numpy as np

from at_jax.data.dataset import Dataset
from at_jax.data.decoding import Examples, as_array, assemble, to_square

_SUFFIXES = (".jpg", ".jpeg", ".png")
_LAYOUT = "<dir>/{train,test}/<class>/*.{jpg,jpeg,png}"


def load_folder(
    name: str = "", data_dir: str = "", image_size: int = 0, memory_limit_mb: int = 4096
) -> Dataset:
    """Loads `<data_dir>/{train,test}/<class>/*.{jpg,jpeg,png}`.

    Classes are the directories' names, sorted; suffixes count in any case; other files and hidden
    directories are passed over. All images become RGB: grey is repeated, alpha is dropped.

    Args:
      name: The dataset's name; empty takes the directory's.
      data_dir: The directory.
      image_size: 0 takes images as they are, all of one size; otherwise the shorter side is resized
        to it (pixels, bilinear) and the centre square cropped.
      memory_limit_mb: Up to this many MiB of decoded images are held in memory.

    Returns:
      The dataset; its images are uint8 (N, H, W, 3).

    Raises:
      ValueError: The layout is another one, the splits' classes differ, an image cannot be read, or
        images differ in size.
    """
    if not data_dir:
        raise ValueError(
            f"data source 'folder': expected a directory laid out as {_LAYOUT}, got none: give "
            "data_dir"
        )
    root = pathlib.Path(data_dir).expanduser()
    classes = {split: _class_names(root / split) for split in ("train", "test")}
    if classes["train"] != classes["test"]:
        only = {
            split: sorted(set(classes[split]) - set(classes[other]))
            for split, other in (("train", "test"), ("test", "train"))
        }
        raise ValueError(
            f"image folder {root}: expected the same classes in train and test, got "
            f"{only['train']} only in train and {only['test']} only in test: rename or add them"
        )
    splits = [_examples(root / split, classes["train"], image_size) for split in ("train", "test")]
    name = name or root.resolve().name
    return assemble(name, *splits, classes["train"], memory_limit_mb)


def _class_names(split_dir: pathlib.Path) -> list[str]:
    if not split_dir.is_dir():
        raise ValueError(
            f"image folder {split_dir.parent}: expected {_LAYOUT}, got no directory {split_dir}: "
            "create it or correct data_dir"
        )
    with os.scandir(split_dir) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if len(names) < 2:
        raise ValueError(
            f"image folder {split_dir}: expected at least two class directories ({_LAYOUT}), got "
            f"{names}: put the images of a class into a directory named after it"
        )
    return names


def _image_names(class_dir: pathlib.Path) -> list[str]:
    with os.scandir(class_dir) as entries:
        names = sorted(
            e.name
            for e in entries
            if e.name.lower().endswith(_SUFFIXES) and not e.name.startswith(".")
        )
    if not names:
        raise ValueError(
            f"image folder {class_dir}: expected images ({', '.join(_SUFFIXES)}), got none: add "
            "some or remove the directory"
        )
    return names


def _examples(split_dir: pathlib.Path, class_names: list[str], image_size: int) -> Examples:
    paths, labels = [], []
    for label, class_name in enumerate(class_names):
        names = _image_names(split_dir / class_name)
        paths += [os.path.join(split_dir, class_name, name) for name in names]
        labels += [label] * len(names)

    def read(indices: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        return ((_read_image(paths[i], image_size), labels[i]) for i in indices)

    return Examples(len(paths), read, lambda: np.array(labels), lambda index: paths[index])


def _read_image(path: str, image_size: int) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return as_array(to_square(_to_rgb(image), image_size))
    # PIL tells a bad file by many types: OSError, SyntaxError (PNG), ValueError, struct.error ...
    except Exception as error:
        raise ValueError(
            f"image {path}: expected a readable JPEG or PNG, got {type(error).__name__} ({error}): "
            "replace or remove the file"
        ) from error


def _to_rgb(image):
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip to white
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == "P":  # a palette may hold transparency, which PIL warns to take this way
        image = image.convert("RGBA")
    return image.convert("RGB")
