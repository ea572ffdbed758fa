"""Images that are drawn: of a data set, or the user's photographs of any size."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from at_jax import data, paths
from at_jax.data import crops
from at_jax.data.files import photographs, reading
from at_jax.errors import UserError, replacing
from at_jax.training.components import datasets
from at_jax.training.files import identity, run_files
from at_jax.training.settings import DataSettings

__all__ = ["UNKNOWN", "Images", "choose", "dataset_of", "files", "from_files", "from_split"]

UNKNOWN = -1
_FLAG = "--images"  # names the files
_MIN_SIDE = 192  # pixels of a photograph in a figure, where the network takes fewer


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Images in the form that networks take and in the form that is drawn.

    Attributes:
      pixels: uint8 ``(B, H, W, C)``, for networks.
      shown: uint8 ``(h, w, 3)`` each, the same crop in the resolution that is drawn.
      labels: int ``(B,)``, true classes, or `UNKNOWN`.
    """

    pixels: np.ndarray
    shown: tuple[np.ndarray, ...]
    labels: np.ndarray


def dataset_of(workdir: str | pathlib.Path, data_dir: str = "") -> data.Dataset:
    """Load the data set of a run; images are decoded when they are taken.

    Args:
      workdir: of the run.
      data_dir: where its images are; empty for the place in its config.

    Raises:
      UserError: if it cannot be loaded, or was passed as an argument.
    """
    workdir = paths.parse(workdir)
    if "dataset" in run_files.read_arguments(workdir):
        raise UserError(
            f"the run in {workdir} was trained on a data set passed as an argument: pass --images"
        )
    stored = run_files.read_config(workdir)["data"]
    datasets.check_moved(stored["source"], data_dir)
    stored["data_dir"] = data_dir or stored["data_dir"]
    values: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in stored.items()
    }
    with datasets.kept_in_memory(), replacing([("--config.data.data_dir=", "--data_dir ")]):
        dataset = datasets.load_dataset(DataSettings(**{**values, "memory_limit_mb": 0}))
    if identified := run_files.read_identity(workdir).get("data"):
        identity.check_classes(workdir, identified, dataset)
    return dataset


def from_split(split: data.Split, indices: np.ndarray) -> Images:
    """Images of a split, at `indices` (n,)."""
    pixels, labels = split.take(np.asarray(indices))
    return Images(pixels, tuple(_rgb(image) for image in pixels), labels)


def files(names: Sequence[str], count: int) -> list[str]:
    """Image files to draw: those that are named, and ``count`` of each directory.

    Those of a directory are evenly spaced in the order of their names, so that they are of different
    classes where each class has a directory.

    Args:
      names: of files and directories.
      count: largest number of files of a directory.

    Raises:
      UserError: as :func:`at_jax.data.files.photographs.find`.
    """
    chosen: list[str] = []
    for name in names:
        found = photographs.find(name, subject=_FLAG)
        number = min(count, len(found))
        chosen += [found[k * len(found) // number] for k in range(number)]
    return chosen


def from_files(
    files: Sequence[str],
    image_shape: tuple[int, int, int],
    class_names: Sequence[str] = (),
    *,
    named: Sequence[str] = (),
    bit_depth: int = reading.MAX_DEPTH,
    resize: int = 0,
) -> Images:
    """Read photographs of any size, as training does: the center square is resized.

    See :func:`at_jax.data.files.photographs.read`, and for the true class of a photograph
    :func:`at_jax.data.files.photographs.class_of`.

    Args:
      files: image files.
      image_shape: (H, W, C) of the network.
      class_names: K names; empty if unknown.
      named: files and directories that the user named.
      bit_depth: of 16-bit files; that of the data set that the network was trained on.
      resize: pixels of the shorter side before the center is cropped; see ``Dataset.resize``.

    Raises:
      UserError: if a file is missing or is no image.
    """
    height, width, _ = image_shape
    scale = max(1, _MIN_SIDE // max(height, width))
    options: dict[str, Any] = {"subject": _FLAG, "bit_depth": bit_depth}
    pixels, shown, labels = [], [], []
    below = photographs.roots(named)
    for path in map(paths.parse, files):
        pixels.append(photographs.read(path, image_shape, resize=resize, **options))
        photograph = photographs.open_photograph(path, **options)
        larger = photographs.fit(photograph, height * scale, width * scale, resize * scale)
        shown.append(_rgb(crops.as_array(larger)))
        label = photographs.class_of(path, class_names, below)
        labels.append(UNKNOWN if label is None else label)
    return Images(np.stack(pixels), tuple(shown), np.array(labels))


def choose(labels: np.ndarray, count: int, wrong: np.ndarray | None = None) -> np.ndarray:
    """Choose images to draw: classes in turn; the last quarter are mistakes.

    Args:
      labels: ``(N,)``, classes.
      count: number of images; fewer if there are fewer.
      wrong: ``(N,)`` bool, images that the student misclassifies; None to ignore mistakes.

    Returns:
      Distinct indices, at most `count`.

    >>> choose(np.array([0, 0, 1, 1, 2]), 4).tolist()
    [0, 2, 4, 1]
    >>> choose(np.array([0, 0, 1, 1, 2]), 4, wrong=np.arange(5) == 3).tolist()
    [0, 2, 4, 3]
    """
    seen: dict[int, int] = {}
    rank = np.empty(len(labels), np.int64)  # number of earlier images of the same class
    for place, label in enumerate(labels):
        rank[place] = seen[label] = seen.get(label, -1) + 1
    in_turn = np.lexsort((labels, rank))
    if wrong is None or not wrong.any():
        return in_turn[:count]
    mistakes = [i for i in in_turn if wrong[i]][: max(1, count // 4)]
    right = [i for i in in_turn if i not in mistakes][: count - len(mistakes)]
    return np.array([*right, *mistakes])


def _rgb(image: np.ndarray) -> np.ndarray:
    """The first three channels of an image (H, W, C), or the first one three times."""
    shown = image[..., : 3 if image.shape[-1] >= 3 else 1]
    return np.broadcast_to(shown, (*image.shape[:2], 3))
