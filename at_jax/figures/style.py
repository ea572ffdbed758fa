"""Shared parts of all figures: matplotlib settings, colors, empty figures, PNG files.

Figures are matplotlib's own objects without pyplot: drawing needs no display and leaves no global
state. Matplotlib is imported when the first figure is made.
"""

import contextlib
import io
import math
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from at_jax import extras, paths
from at_jax.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "DASHES", "MAP_COLORS", "RIGHT", "TEACHER_COLOR", "VARIANT_COLORS", "WRONG", "context", "figure",
    "pair_title", "save", "stacked_png", "use_epochs", "use_readable_scale",
]  # fmt: skip

# Of Okabe and Ito's colors, which color-blind readers can distinguish: blue and vermilion.
RIGHT, WRONG = "#0072B2", "#D55E00"
# For lines that would have the color of another line.
VARIANT_COLORS = (
    "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#A89800", "#332288", "#E6399B",
)  # fmt: skip
# Of lines of one color.
DASHES: tuple[Any, ...] = (
    "-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)), (0, (4, 1, 4, 1, 1, 1)),
)  # fmt: skip
TEACHER_COLOR = "#000000"
MAP_COLORS = "magma"  # perceptually uniform: equal steps of the value appear equal

# A user's matplotlibrc must not turn labels into LaTeX, class names with a dollar sign into formulas,
# or text and background into one color.
_SETTINGS: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],  # part of matplotlib, so it is never missing
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,
    "figure.titlesize": 11.0,
    "figure.titleweight": "bold",
    "figure.labelsize": 8.0,
    "figure.dpi": 110.0,
    "backend": "agg",
}
_MAX_WIDTH, _MAX_HEIGHT = 2400, 16_000  # of a PNG, in pixels
_OF_AXIS = ("set_{}scale", "set_{}lim", "get_{}lim", "set_{}ticks")
_MOST_DECADES = 8  # with a label
_LOG_FROM = 3  # a larger ratio of largest to smallest value gets a logarithmic axis


@contextlib.contextmanager
def context() -> Iterator[None]:
    """Temporarily override matplotlib's rcParams.

    Text takes its font when it is created, so figures are made inside this context, not only saved.

    Raises:
      UserError: if matplotlib is not installed.
    """
    with extras.needed_for("drawing"):
        import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # A glyph that the font lacks (a class name in another script) is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        settings: Any = {**matplotlib.rcParamsDefault, **_SETTINGS}
        matplotlib.rcParams.update(settings)
        yield


def figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **kwargs: Any
) -> tuple["Figure", np.ndarray]:
    """Create a figure with constrained layout. Call it inside :func:`context`.

    Args:
      width: in inches.
      height: in inches.
      rows: of axes.
      columns: of axes.
      **kwargs: for ``Figure.subplots``: ``sharex``, ``width_ratios`` ...

    Returns:
      The figure and its axes, an array ``(rows, columns)``.
    """
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    return made, made.subplots(rows, columns, squeeze=False, **kwargs)


def use_readable_scale(panel: "Axes", values: Sequence[float], axis: str = "y") -> None:
    """Make an axis logarithmic if values differ much, so that the small ones are as readable as the large.

    Args:
      panel: axes of a figure.
      values: that are drawn in it; those that are not finite are ignored.
      axis: ``"x"`` or ``"y"``.
    """
    set_scale, set_limits, limits, set_ticks = (
        getattr(panel, each.format(axis)) for each in _OF_AXIS
    )
    finite = [value for value in values if math.isfinite(value)]
    positive = [value for value in finite if value > 0]
    if not positive or min(finite) < 0 or max(positive) <= _LOG_FROM * min(positive):
        return
    low, high = min(positive), max(positive)
    if has_zeros := min(finite) == 0:
        set_scale("symlog", linthresh=low, linscale=0.5)
        set_limits(0, None)
    else:
        set_scale("log")
    bottom, top = limits()
    bottom = low if has_zeros else bottom  # below it, labels would overlap that of zero
    ratio = high / low
    steps = (1, 1.5, 2, 3, 4, 5, 7) if ratio < 10 else (1, 2, 5) if ratio < 1000 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = range(first, last + 1, -(-(last - first) // _MOST_DECADES))
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    ticks = [0.0] * has_zeros + [tick for tick in ticks if bottom <= tick <= top]
    # Matplotlib's own labels are formulas.
    set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()


def pair_title(pair: str, letters: int = 50) -> str:
    """Fit the names of two networks into a panel: on two lines if they are long, each cut if it is longer.

    Args:
      pair: ``"student <- teacher"``.
      letters: that fit into a line.

    >>> print(pair_title("package:AStudent <- package:ATeacher", letters=14))
    package:AStud…
    <- package:AT…
    """
    lines = [pair] if len(pair) <= letters else pair.replace(" <- ", "\n<- ", 1).splitlines()
    return "\n".join(line if len(line) <= letters else f"{line[: letters - 1]}…" for line in lines)


def use_epochs(panel: "Axes", epochs: Sequence[int]) -> None:
    """Label the x axis with whole epochs, also if there is only one.

    Args:
      panel: axes of a figure.
      epochs: that are drawn in it, at least one.
    """
    margin = 0.04 * (max(epochs) - min(epochs)) or 0.5
    panel.set_xlim(min(epochs) - margin, max(epochs) + margin)
    panel.locator_params(axis="x", integer=True, min_n_ticks=1)


def _pixels(figure: "Figure") -> np.ndarray:
    """Render a figure, uint8 ``(height, width, 3)``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    width, height = figure.get_size_inches()
    figure.set_dpi(min(figure.get_dpi(), _MAX_WIDTH / width, _MAX_HEIGHT / height))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def stacked_png(figures: Sequence["Figure"]) -> bytes:
    """Render figures below one another, as the content of one PNG file."""
    from PIL import Image

    drawn = [_pixels(figure) for figure in figures]
    width = max(pixels.shape[1] for pixels in drawn)
    padded = [
        np.pad(pixels, ((0, 0), (0, width - pixels.shape[1]), (0, 0)), constant_values=255)
        for pixels in drawn
    ]
    file = io.BytesIO()
    Image.fromarray(np.concatenate(padded)).save(file, format="PNG")
    return file.getvalue()


def save(figure: "Figure", path: str | pathlib.Path) -> None:
    """Write a figure as a PNG file, atomically: a reader sees the old file or the new one.

    Args:
      figure: from :func:`figure`.
      path: ends in ``.png``; a missing folder is created.

    Raises:
      UserError: if the name has another ending, or the file cannot be written.
    """
    path = paths.parse(path)
    if path.suffix.lower() != ".png":
        raise UserError(
            f"figures are PNG files, got {str(path)!r}: choose a name that ends in .png"
        )
    content = stacked_png([figure])
    try:
        paths.write_bytes(path, content)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): choose another --out"
        ) from error
