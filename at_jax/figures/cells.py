"""The cells of a grid: maps brought to one scale, coloured and laid over their images."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from at_jax import maps
from at_jax.figures import canvas

_SIDE = 96  # of a cell, in dots of the drawing
OPACITY = 0.7


@dataclasses.dataclass(frozen=True, eq=False)
class Column:
    """One network's maps of all images.

    Attributes:
      group: what stands above neighbouring columns that share a scale: the transfer point.
      head: what stands above this one: the network.
      values: a map a row, ``(h, w)`` each, as :func:`even` gives them.
    """

    group: str
    head: str
    values: Sequence[np.ndarray]


def even(q: np.ndarray) -> np.ndarray:
    """Divide every map by its root mean square: 1 everywhere is a map that favours no position.

    It is :func:`at_jax.maps.normalize` times the root of the number of positions, so that maps of
    different sizes can share a scale.

    Args:
      q: maps, ``(B, H, W)``.

    Returns:
      ``(B, H, W)``.

    >>> even(np.array([[[7.0, 7.0]], [[0.0, 0.0]]], np.float32)).round(4).tolist()
    [[[1.0, 1.0]], [[0.0, 0.0]]]
    """
    scaled = np.asarray(maps.normalize(q)) * np.sqrt(q[0].size)
    return scaled.reshape(q.shape)


def limits(columns: Sequence[Column], quantile: float = 1.0) -> dict[str, float]:
    """The upper end of each group's colour scale; the lower one is 0. Its columns share it.

    Args:
      columns: of the grid.
      quantile: of all values of the group: below 1 where a few pixels would leave the rest dark.

    Returns:
      Group to value, above 0.
    """
    tops = {}
    for group in dict.fromkeys(column.group for column in columns):
        values = [np.ravel(q) for c in columns if c.group == group for q in c.values]
        tops[group] = float(np.quantile(np.concatenate(values), quantile)) or 1.0
    return tops


def overlay(
    image: np.ndarray, q: np.ndarray, top: float, *, opacity: float = OPACITY
) -> np.ndarray:
    """A map enlarged over its image.

    Args:
      image: uint8 ``(h, w, 3)``; its grey values show through.
      q: the map, of any size.
      top: value of the brightest colour.
      opacity: of the map, 0..1.

    Returns:
      uint8 ``(96, 96, 3)``, or less in the shorter side of an image that is not square.
    """
    import matplotlib
    from PIL import Image

    height, width = size(image)
    enlarged = Image.fromarray(np.asarray(q, np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    colours = matplotlib.colormaps[canvas.MAP_COLOURS](np.asarray(enlarged) / top)[..., :3]
    grey = enlarge(image).mean(axis=-1, keepdims=True) / 255
    return mixed(colours, grey, opacity)


def enlarge(image: np.ndarray) -> np.ndarray:
    """An image in the size of a cell, uint8: small ones keep their square pixels."""
    from PIL import Image

    height, width = size(image)
    how = Image.Resampling.NEAREST if height >= len(image) else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), how))


def size(image: np.ndarray) -> tuple[int, int]:
    """Height and width of a cell for images of these proportions."""
    longer = max(image.shape[:2])
    return tuple(max(1, round(_SIDE * side / longer)) for side in image.shape[:2])


def mixed(colours: np.ndarray, grey: np.ndarray | float, opacity: float) -> np.ndarray:
    """Colours (0..1) of a map over the grey values (0..1) of its image, uint8."""
    # Little contrast, so that the image's own brightness is not taken for the map's.
    levels = np.round(255 * (opacity * colours + (1 - opacity) * (0.25 + 0.5 * grey)))
    # 64 shades a channel are as good to the eye, and halve the file.
    return np.minimum(4 * np.round(levels / 4), 255).astype(np.uint8)
