"""The images that are drawn: of a data set, or the user's own photographs of any size."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from at_jax import data
from at_jax.data import decoding

UNKNOWN = -1
_SHOWN_SIDE = 192  # pixels of a photograph in the drawing, where the network sees fewer


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Images for the network and for the eye.

    Attributes:
      images: uint8 ``(B, H, W, C)``, as the network is shown them.
      shown: uint8 ``(h, w, 3)`` each, the same cut in the pixels that are drawn.
      labels: int ``(B,)``, true classes, `UNKNOWN` where there is none.
    """

    images: np.ndarray
    shown: tuple[np.ndarray, ...]
    labels: np.ndarray


def from_split(split: data.Split, indices: np.ndarray) -> Pictures:
    """Images of a split, at `indices` (n,)."""
    images, labels = split.take(np.asarray(indices))
    return Pictures(images, tuple(_rgb(image) for image in images), labels)


def from_files(
    paths: Sequence[str], image_shape: tuple[int, int, int], class_names: Sequence[str] = ()
) -> Pictures:
    """Photographs of any size, cut as training cuts them: shorter side to size, centre.

    A photograph's rotation tag is followed. Its true class is known where its folder is named after
    one, as in ``test/cat/1.jpg``.

    Args:
      paths: image files.
      image_shape: (H, W, C) that the network wants.
      class_names: K names, or none.

    Returns:
      The pictures.

    Raises:
      ValueError: if a file is missing or is no image.
    """
    from PIL import Image, ImageOps

    height, width, channels = image_shape
    images, shown, labels = [], [], []
    for path in map(pathlib.Path, paths):
        try:
            with Image.open(path) as file:
                photograph = ImageOps.exif_transpose(file).convert("RGB")
        except FileNotFoundError as error:
            raise ValueError(
                f"--images: there is no file {str(path)!r}: correct the path"
            ) from error
        except (OSError, Image.DecompressionBombError) as error:
            raise ValueError(
                f"--images: {str(path)!r} cannot be read as an image ({error}): give JPEG or PNG files"
            ) from error
        seen = _cut(photograph, height, width).convert("L" if channels == 1 else "RGB")
        images.append(decoding.as_array(seen))
        larger = max(1, _SHOWN_SIDE // max(height, width))
        shown.append(_rgb(decoding.as_array(_cut(photograph, height * larger, width * larger))))
        folder = path.resolve().parent.name
        labels.append(list(class_names).index(folder) if folder in class_names else UNKNOWN)
    return Pictures(np.stack(images), tuple(shown), np.array(labels))


def choose(labels: np.ndarray, count: int, wrong: np.ndarray | None = None) -> np.ndarray:
    """Which images to draw: one of each class in turn, the last quarter of them mistakes.

    Args:
      labels: ``(N,)``, classes.
      count: how many; no more than there are.
      wrong: ``(N,)`` bool, those that the student takes for another class; None for no choice by it.

    Returns:
      Indices, at most `count`, none twice.

    >>> choose(np.array([0, 0, 1, 1, 2]), 4).tolist()
    [0, 2, 4, 1]
    >>> choose(np.array([0, 0, 1, 1, 2]), 4, wrong=np.arange(5) == 3).tolist()
    [0, 2, 4, 3]
    """
    seen: dict[int, int] = {}
    rank = np.empty(len(labels), np.int64)  # how many of its class come before an image
    for place, label in enumerate(labels):
        rank[place] = seen[label] = seen.get(label, -1) + 1
    in_turn = np.lexsort((labels, rank))
    if wrong is None or not wrong.any():
        return in_turn[:count]
    mistakes = [i for i in in_turn if wrong[i]][: max(1, count // 4)]
    right = [i for i in in_turn if i not in mistakes][: count - len(mistakes)]
    return np.array([*right, *mistakes])


def _cut(image, height: int, width: int):
    """The centre of a PIL image, brought to (height, width)."""
    from PIL import Image, ImageOps

    if height == width:
        return decoding.to_square(image, height)
    return ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)


def _rgb(image: np.ndarray) -> np.ndarray:
    return np.broadcast_to(image, (*image.shape[:2], 3))
