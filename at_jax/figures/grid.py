"""A grid of maps over images, a row an image."""

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from at_jax.figures import canvas, cells

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# In dots of the drawing.
_GAP, _GROUP_GAP, _MARGIN = 4, 14, 12
_LINE, _BAR, _STRIP = 15, 9, 5
_LETTER, _LONGEST = 6.9, 34  # dots a letter of a caption, letters of the longest line


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of text beside a row."""

    text: str
    colour: str = "black"
    bold: bool = False


def draw(
    shown: Sequence[np.ndarray],
    columns: Sequence[cells.Column],
    captions: Sequence[Sequence[Line]],
    *,
    title: str,
    note: str,
    opacity: float = cells.OPACITY,
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
      quantile: see :func:`at_jax.figures.cells.limits`.

    Returns:
      A figure to save with :func:`at_jax.figures.canvas.save`, inside of ``canvas.style()``.
    """
    tops, place = cells.limits(columns, quantile), _layout(shown, columns, captions, title, note)
    sheet = np.full((*place.size, 3), 255, np.uint8)
    for image, y, *values in zip(shown, place.rows, *(c.values for c in columns), strict=True):
        _put(sheet, cells.enlarge(image), y, place.image)
        for q, x, column in zip(values, place.columns, columns, strict=True):
            _put(sheet, cells.overlay(image, q, tops[column.group], opacity=opacity), y, x)
    figure, axes = canvas.figure(place.size[1] / canvas.DPI, place.size[0] / canvas.DPI)
    figure.set_layout_engine("none")  # every dot has its place already
    axes = axes[0, 0]
    axes.set_position((0, 0, 1, 1))
    axes.set_axis_off()
    axes.text(_MARGIN, _MARGIN, title, va="top", size=11, weight="bold")
    axes.text(_MARGIN, place.size[0] - _MARGIN, place.note, va="bottom", size=8, color="#444444")
    for caption, y in zip(captions, place.rows, strict=True):
        _write(axes, caption, y + place.cell[0] / 2)
        _mark(sheet, caption, (place.image - _STRIP, place.image), (y, y + place.cell[0]))
    above = place.rows[0] - _GAP
    for x, head in zip(place.columns, place.heads, strict=True):
        axes.text(x + place.cell[1] / 2, above, head, ha="center", va="bottom")
    above -= place.head_lines * _LINE + 2
    for group, top in tops.items():
        lefts = [x for x, c in zip(place.columns, columns, strict=True) if c.group == group]
        ends = lefts[0], lefts[-1] + place.cell[1]
        axes.text(sum(ends) / 2, above, group, ha="center", va="bottom", weight="bold")
        _bar(sheet, axes, ends, place.rows[-1] + place.cell[0] + 2 * _GAP, top, opacity)
    height, width = place.size
    axes.imshow(sheet, extent=(0, width, height, 0), aspect="auto", interpolation="antialiased")
    return figure


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Where things stand, in dots from the upper left corner."""

    size: tuple[int, int]  # height, width
    cell: tuple[int, int]
    rows: list[int]  # upper ends
    image: int  # left end of the images
    columns: list[int]  # left ends of the maps
    heads: list[str]
    head_lines: int
    note: str


def _layout(shown, columns, captions, title: str, note: str) -> _Layout:
    cell = height, width = cells.size(shown[0])
    letters = [len(line.text[:_LONGEST]) for caption in captions for line in caption]
    image = _MARGIN + round(_LETTER * max([12, *letters])) + _STRIP + _GAP
    lefts, x = [], image + width
    for before, column in zip((None, *columns), columns, strict=False):
        x += _GAP if before and before.group == column.group else _GROUP_GAP
        lefts.append(x)
        x += width
    x = max(x, round(1.25 * _LETTER * len(title)))
    heads = ["\n".join(textwrap.wrap(column.head, max(8, width // 7))) for column in columns]
    head_lines = max((head.count("\n") + 1 for head in heads if head), default=0)
    first = _MARGIN + (3 + head_lines) * _LINE
    rows = [first + row * (height + _GAP) for row in range(len(shown))]
    notes = textwrap.wrap(note, round((x - _MARGIN) / 6.5))
    below = rows[-1] + height + 2 * _GAP + _BAR + (2 + len(notes)) * _LINE
    return _Layout(
        (below, x + _MARGIN), cell, rows, image, lefts, heads, head_lines, "\n".join(notes)
    )


def _bar(
    sheet: np.ndarray, axes, ends: tuple[int, int], y: int, top: float, opacity: float
) -> None:
    """The colour scale of a group below it, with its ends named, and 1 where it lies between."""
    import matplotlib

    left, right = ends
    colours = matplotlib.colormaps[canvas.MAP_COLOURS](np.linspace(0, 1, right - left))[..., :3]
    sheet[y : y + _BAR, left:right] = cells.mixed(colours, 0.5, opacity)
    for value, place, side in ((0, left, "left"), (top, right, "right")):
        axes.text(place, y + _BAR + 2, f"{value:.2g}", ha=side, va="top", size=8)
    place = left + (right - left) / top
    if 0.2 < 1 / top < 0.7:
        axes.plot([place, place], [y - 1, y + _BAR + 2], color="white", linewidth=1)
        axes.text(place, y + _BAR + 2, "1", ha="center", va="top", size=8)


def _write(axes, caption: Sequence[Line], middle: float) -> None:
    """Lines at the left of a row, around its middle."""
    top = middle - (len(caption) - 1) * _LINE / 2
    for place, line in enumerate(caption):
        text = line.text if len(line.text) <= _LONGEST else line.text[: _LONGEST - 1] + "…"
        weight = "bold" if line.bold else "normal"
        y = top + place * _LINE
        axes.text(_MARGIN, y, text, va="center", size=8.5, color=line.colour, weight=weight)


def _mark(sheet: np.ndarray, caption: Sequence[Line], columns, rows) -> None:
    """A strip beside the image in the colour of the caption's first coloured line: right or wrong."""
    import matplotlib.colors

    for line in caption:
        if line.colour != "black":
            rgb = np.round(255 * np.array(matplotlib.colors.to_rgb(line.colour)))
            sheet[slice(*rows), slice(*columns)] = rgb.astype(np.uint8)
            return


def _put(sheet: np.ndarray, cell: np.ndarray, y: int, x: int) -> None:
    sheet[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
