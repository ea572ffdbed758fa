"""A grid of maps over images, a row an image."""

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from at_jax import maps
from at_jax.figures import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# In dots of the drawing.
_SIDE, _GAP, _GROUP_GAP, _MARGIN = 96, 4, 14, 12
_CAPTION, _LINE, _BAR = 165, 15, 9
_OPACITY = 0.7


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


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of text beside a row."""

    text: str
    colour: str = "black"
    bold: bool = False


def even(q: np.ndarray) -> np.ndarray:
    """Divide every map by its root mean square: 1 everywhere is a map that favours no position.

    It is :func:`at_jax.maps.normalize` times the root of the number of positions, so that maps of
    different sizes can share a scale.

    Args:
      q: maps, ``(B, H, W)``.

    Returns:
      ``(B, H, W)``.

    >>> even(np.array([[[7.0, 7.0]], [[0.0, 0.0]]], np.float32)).tolist()
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
    image: np.ndarray, q: np.ndarray, top: float, *, opacity: float = _OPACITY
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

    height, width = _cell(image)
    enlarged = Image.fromarray(np.asarray(q, np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    colours = matplotlib.colormaps[canvas.MAP_COLOURS](np.asarray(enlarged) / top)[..., :3]
    grey = enlarge(image).mean(axis=-1, keepdims=True) / 255
    return _mixed(colours, grey, opacity)


def _mixed(colours: np.ndarray, grey: np.ndarray | float, opacity: float) -> np.ndarray:
    # Little contrast, so that the image's own brightness is not taken for the map's.
    mixed = np.round(255 * (opacity * colours + (1 - opacity) * (0.25 + 0.5 * grey)))
    # 64 shades a channel are as good to the eye, and halve the file.
    return np.minimum(4 * np.round(mixed / 4), 255).astype(np.uint8)


def enlarge(image: np.ndarray) -> np.ndarray:
    """An image in the size of a cell, uint8: small ones keep their square pixels."""
    from PIL import Image

    height, width = _cell(image)
    how = Image.Resampling.NEAREST if height >= len(image) else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), how))


def draw(
    shown: Sequence[np.ndarray],
    columns: Sequence[Column],
    captions: Sequence[Sequence[Line]],
    *,
    title: str,
    note: str,
    opacity: float = _OPACITY,
    quantile: float = 1.0,
) -> "Figure":
    """The grid: captions, images, and every column's maps over them.

    Args:
      shown: uint8 ``(h, w, 3)``, an image a row.
      columns: in order; those of a group stand together.
      captions: the lines at the left of each row.
      title: above all.
      note: below all.
      opacity: of the maps.
      quantile: see :func:`limits`.

    Returns:
      A figure to save with :func:`at_jax.figures.canvas.save`, inside of ``canvas.style()``.
    """
    tops = limits(columns, quantile)
    height, width = _cell(shown[0])
    lefts, x = [], _CAPTION + width
    for before, column in zip((None, *columns), columns, strict=False):
        x += _GAP if before and before.group == column.group else _GROUP_GAP
        lefts.append(x)
        x += width
    heads = [_wrapped(column.head, width) for column in columns]
    lines = 1 + max((head.count("\n") + 1 for head in heads if head), default=0)
    first = _MARGIN + (2 + lines) * _LINE
    below = first + len(shown) * (height + _GAP)
    notes = textwrap.wrap(note, max(30, (x - _MARGIN) // 6))
    size = (below + _BAR + (2 + len(notes)) * _LINE + _MARGIN, x + _MARGIN)

    sheet = np.full((*size, 3), 255, np.uint8)
    for row, image in enumerate(shown):
        y = first + row * (height + _GAP)
        _put(sheet, enlarge(image), y, _CAPTION)
        for left, column in zip(lefts, columns, strict=True):
            cell = overlay(image, column.values[row], tops[column.group], opacity=opacity)
            _put(sheet, cell, y, left)

    figure, axes = canvas.figure(size[1] / canvas.DPI, size[0] / canvas.DPI)
    figure.set_layout_engine("none")  # every dot has its place already
    (axes,) = axes.ravel()
    axes.set_position((0, 0, 1, 1))
    axes.set_axis_off()
    axes.text(_MARGIN, _MARGIN, title, va="top", size=11, weight="bold")
    for row, caption in enumerate(captions):
        _write(axes, caption, first + row * (height + _GAP) + height / 2)
    for left, head in zip(lefts, heads, strict=True):
        axes.text(left + width / 2, first - _GAP, head, ha="center", va="bottom")
    for group, top in tops.items():
        places = [left for left, c in zip(lefts, columns, strict=True) if c.group == group]
        middle = (places[0] + places[-1] + width) / 2
        above = first - (lines - 1) * _LINE - _GAP - 4
        text = group if len(places) > 1 else _wrapped(group, width)
        axes.text(middle, above, text, ha="center", va="bottom", weight="bold")
        _bar(sheet, axes, (places[0], places[-1] + width), below + _GAP, top, opacity)
    axes.text(_MARGIN, size[0] - _MARGIN, "\n".join(notes), va="bottom", size=8, color="#444444")
    axes.imshow(sheet, extent=(0, size[1], size[0], 0), aspect="auto", interpolation="antialiased")
    return figure


def _bar(
    sheet: np.ndarray, axes, ends: tuple[int, int], y: int, top: float, opacity: float
) -> None:
    """The colour scale of a group below it, with its ends named, and 1 where it lies between."""
    import matplotlib

    left, right = ends
    colours = matplotlib.colormaps[canvas.MAP_COLOURS](np.linspace(0, 1, right - left))[..., :3]
    sheet[y : y + _BAR, left:right] = _mixed(colours, 0.5, opacity)
    for value, place, side in ((0, left, "left"), (top, right, "right")):
        axes.text(place, y + _BAR + 2, f"{value:.2g}", ha=side, va="top", size=8)
    place = left + (right - left) / top
    if 0.2 < 1 / top < 0.7:
        axes.plot([place, place], [y - 1, y + _BAR + 2], color="white", linewidth=1)
        axes.text(place, y + _BAR + 2, "1", ha="center", va="top", size=8)


def _write(axes, caption: Sequence[Line], middle: float) -> None:
    """Lines at the left of a row, around its middle."""
    top = middle - len(caption) * _LINE / 2
    for place, line in enumerate(caption):
        axes.text(
            _MARGIN,
            top + (place + 0.5) * _LINE,
            textwrap.shorten(line.text, 22, placeholder="…")
            if " " in line.text[:21]
            else line.text[:22],
            va="center",
            size=8.5,
            color=line.colour,
            weight="bold" if line.bold else "normal",
        )


def _put(sheet: np.ndarray, cell: np.ndarray, y: int, x: int) -> None:
    sheet[y : y + cell.shape[0], x : x + cell.shape[1]] = cell


def _cell(image: np.ndarray) -> tuple[int, int]:
    """Height and width of a cell for images of these proportions."""
    longer = max(image.shape[:2])
    return tuple(max(1, round(_SIDE * side / longer)) for side in image.shape[:2])


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, max(8, width // 7)))
