"""Grid of maps over images: one row per image, one group of columns per transfer point."""

import dataclasses
import functools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from at_jax.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Column", "Line", "draw", "overlay", "scale_limit"]

# In pixels. A small grid gets larger cells.
_MIN_SIDE, _MAX_SIDE, _MAX_WIDTH, _MAX_HEIGHT, _GAP, _BAR_HEIGHT = 72, 160, 720, 900, 3, 6
_LINE_HEIGHT, _MAX_LETTERS = 11.0, 44  # of a caption; height in points
_QUANTILE = 0.995  # a few positions hold by far the largest values
_NOTE = "Maps are divided by their RMS (1 = uniform). Color scale clipped at the 99.5th percentile."


@dataclasses.dataclass(frozen=True, eq=False)
class Column:
    """Maps of one network, one for each image.

    Attributes:
      group: heading over neighboring columns that share a color scale: the transfer point.
      head: heading of the column: the network.
      values: maps ``(h, w)``, see :func:`at_jax.figures.attention.rms_normalize`.
    """

    group: str
    head: str
    values: Sequence[np.ndarray] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a row's caption; `marks_row` chooses between several lines with a color."""

    text: str
    color: str = "black"
    bold: bool = False
    marks_row: bool = False


def scale_limit(columns: Sequence[Column]) -> float:
    """Upper end of the color scale of a group, above 0; the lower end is 0."""
    values = np.concatenate([np.ravel(q) for column in columns for q in column.values])
    return float(np.quantile(values, _QUANTILE)) or 1.0


def overlay(
    image: np.ndarray, q: np.ndarray, limit: float, size: tuple[int, int], opacity: float
) -> np.ndarray:
    """Draw a map, enlarged bilinearly, over the gray values of its image.

    Args:
      image: uint8 ``(h, w, 3)``.
      q: the map, of any size.
      limit: value of the brightest color.
      size: (height, width) of the result, uint8 ``(height, width, 3)``.
      opacity: of the map, 0..1.
    """
    from PIL import Image

    enlarged = Image.fromarray(np.asarray(q, np.float32)).resize(
        size[::-1], Image.Resampling.BILINEAR
    )
    levels = 32 if max(size) < 100 else 128  # few colors make a small PNG file
    colors = _color_map(levels)(np.asarray(enlarged) / limit)[..., :3]
    gray = _enlarge(image, size).mean(axis=-1, keepdims=True) / 255
    # Low contrast: the brightness of the image must not be taken for that of the map.
    gray = 0.25 + 0.5 * np.round(levels / 4 * gray) / (levels / 4)
    return np.round(255 * (opacity * colors + (1 - opacity) * gray)).astype(np.uint8)


@functools.cache
def _color_map(levels: int) -> Any:
    import matplotlib

    return matplotlib.colormaps[style.MAP_COLORS].resampled(levels)


def _enlarge(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image; a small one keeps its square pixels."""
    from PIL import Image

    method = Image.Resampling.NEAREST if size[0] >= len(image) else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size[::-1], method))


def _sheet(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Arrange cells of one size in rows and columns, with white gaps."""
    padding = ((0, 0), (0, 0), (0, _GAP), (0, _GAP), (0, 0))
    cells = np.pad(np.asarray(rows), padding, constant_values=255)  # (rows, columns, h, w, 3)
    sheet = np.concatenate(np.concatenate(cells, axis=1), axis=1)
    return sheet[:-_GAP, :-_GAP]


def draw(
    shown: Sequence[np.ndarray],
    columns: Sequence[Column],
    captions: Sequence[Sequence[Line]],
    *,
    title: str,
    note: str,
    opacity: float = 0.7,
    most_side: int = _MAX_SIDE,
) -> "Figure":
    """Draw captions, images, and the maps of every column over the images.

    Call this inside ``style.context()``; :func:`at_jax.figures.style.save` writes the figure.

    Args:
      shown: uint8 ``(h, w, 3)``, one image per row, all of one shape.
      columns: those of one group share a color scale.
      captions: lines on the left of each row.
      title: of the figure; may be empty.
      note: below the grid; may be empty.
      opacity: of the maps, 0..1; the image is visible below them.
      most_side: of a cell, in pixels; headings may widen it.
    """
    groups: dict[str, list[Column]] = {}
    for column in columns:
        groups.setdefault(column.group, []).append(column)
    limits = {group: scale_limit(members) for group, members in groups.items()}
    height, width = cell = _cell_size(shown, len(columns), most_side)
    sheets = [_sheet([[_enlarge(image, cell)] for image in shown])]
    for group, members in groups.items():
        values = zip(shown, *(column.values for column in members), strict=True)
        cells = [[overlay(x, q, limits[group], cell, opacity) for q in row] for x, *row in values]
        sheets.append(_sheet(cells))
    figure, axes = _axes(sheets)
    figure.suptitle(title, x=0.01, ha="left", wrap=True)
    figure.supxlabel(note and f"{note} {_NOTE}", x=0.01, ha="left", wrap=True)
    for row, caption in enumerate(captions):
        _write(axes[0, :2], caption, row * (height + _GAP), height)
    for (upper, lower), (group, members) in zip(axes.T[2:], groups.items(), strict=True):
        centers = [index * (width + _GAP) + width / 2 for index in range(len(members))]
        upper.set_xticks(centers, [_wrapped(column.head) for column in members])
        upper.set_title(_wrapped(group, len(members)), weight="bold")
        _color_bar(lower, limits[group], opacity)
    high = max(map(len, captions)) * _LINE_HEIGHT * figure.dpi / 72  # the longest caption
    _fit(figure, axes[0], width, max(1.0, high / height))
    return figure


def _cell_size(shown: Sequence[np.ndarray], columns: int, most: int) -> tuple[int, int]:
    """Height and width of a cell in pixels, in the proportions of the images."""
    most = min(most, _MAX_WIDTH // (columns + 1), _MAX_HEIGHT // len(shown))
    shape = np.array(shown[0].shape[:2])
    height, width = np.maximum(1, np.round(max(_MIN_SIDE, most) * shape / max(shape)).astype(int))
    return int(height), int(width)


def _axes(sheets: Sequence[np.ndarray]) -> tuple["Figure", np.ndarray]:
    """A figure with axes for captions and for each sheet, and axes for color bars below these."""
    rows, widths = sheets[0].shape[0], [1, *(sheet.shape[1] for sheet in sheets)]
    ratios: dict[str, Any] = {"width_ratios": widths, "height_ratios": [rows, _BAR_HEIGHT]}
    size = (sum(widths) + 350) / 110, (rows + 150) / 110  # a guess, see `_fit`
    figure, axes = style.figure(*size, 2, len(widths), **ratios)
    for each in axes[:, :2].ravel():
        each.set_axis_off()
    axes[0, 0].set(xlim=(0, 1), ylim=(rows, 0))
    for each, sheet in zip(axes[0, 1:], sheets, strict=True):
        extent = (0, sheet.shape[1], rows, 0)
        each.imshow(sheet, aspect="auto", interpolation="nearest", extent=extent)
        each.autoscale(False)
        each.set_frame_on(False)
        each.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        each.set(xticks=[], yticks=[])
    return figure, axes


def _color_bar(axes: "Axes", limit: float, opacity: float) -> None:
    """Draw the color scale of a group over medium gray."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure: Any = axes.get_figure()
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, limit), _color_map(128)),
        cax=axes,
        orientation="horizontal",
        ticks=[0, 1, limit] if 0.2 < 1 / limit < 0.7 else [0, limit],
        format="{x:.2g}",
        label="map / RMS",
        alpha=opacity,
    )
    bar.outline.set_visible(False)
    axes.set_facecolor("0.5")


def _wrapped(text: str, columns: int = 1) -> str:
    """Break a heading after words and slashes; a longer word widens the cells."""
    spaced = text.replace("/", "/ ")
    return textwrap.fill(spaced, 10 * columns, break_long_words=False).replace("/ ", "/")


def _write(axes: np.ndarray, caption: Sequence[Line], top: int, height: int) -> None:
    """Write a caption next to its row, and draw a bar in the color of the line that marks the row."""
    for index, line in enumerate(caption):
        shift = ((len(caption) - 1) / 2 - index) * _LINE_HEIGHT
        end = "…" if len(line.text) > _MAX_LETTERS else ""
        axes[0].annotate(
            line.text[: _MAX_LETTERS - len(end)] + end,
            (0, top + height / 2),
            xytext=(0, shift),
            textcoords="offset points",
            annotation_clip=False,
            va="center",
            size=8.5,
            color=line.color,
            weight="bold" if line.bold else "normal",
        )
    x, y = (-_GAP, -_GAP), (top, top + height)
    colored = sorted((c for c in caption if c.color != "black"), key=lambda c: c.marks_row)
    if colored:
        axes[1].plot(x, y, color=colored[-1].color, lw=4, clip_on=False, solid_capstyle="butt")


def _fit(figure: "Figure", axes: np.ndarray, width: int, scale: float) -> None:
    """Resize the figure until cells have their size, or are wide enough for the headings over them.

    Data units of the axes (captions, images, groups) are pixels of the sheets. A cell is ``width`` units
    wide; a unit gets at least ``scale`` pixels of the figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer, layout = FigureCanvasAgg(figure).get_renderer(), figure.get_layout_engine()
    assert layout is not None
    for _ in range(3):  # title and note may wrap differently in another width
        layout.execute(figure)
        for each in axes[2:]:
            texts = [(each.title, each.get_xlim()[1])]
            texts += [(label, width) for label in each.get_xticklabels()]
            scale = max(scale, *(t.get_window_extent(renderer).width / w for t, w in texts))
        wide = sum(scale * each.get_xlim()[1] - each.bbox.width for each in axes)
        high = scale * axes[1].get_ylim()[0] - axes[1].bbox.height
        if max(abs(wide), abs(high)) < 5:
            break
        figure.set_size_inches(*(figure.get_size_inches() + np.array([wide, high]) / figure.dpi))
    else:
        layout.execute(figure)
    figure.set_layout_engine("none")
