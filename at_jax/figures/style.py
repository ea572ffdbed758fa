"""Shared parts of all figures: matplotlib settings, colors, empty figures, PNG files.

Figures are matplotlib's own objects without pyplot: drawing needs no display and leaves no global
state. Matplotlib is imported when the first figure is made.
"""

import contextlib
import io
import pathlib
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from at_jax import paths
from at_jax.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MAP_COLORS", "RIGHT", "TEACHER_COLOR", "WRONG", "context", "figure", "save"]

# Of Okabe and Ito's colors, which color-blind readers can distinguish: blue and vermilion.
RIGHT, WRONG = "#0072B2", "#D55E00"
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
_MAX_PIXELS = 2400  # of the longer side of a PNG


@contextlib.contextmanager
def context() -> Iterator[None]:
    """Temporarily override matplotlib's rcParams.

    Text takes its font when it is created, so figures are made inside this context, not only saved.

    Raises:
      UserError: if matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise UserError("drawing needs matplotlib: pip install matplotlib") from error

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


def save(figure: "Figure", path: str | pathlib.Path) -> None:
    """Write a figure as a PNG file, atomically: a reader sees the old file or the new one.

    Args:
      figure: from :func:`figure`.
      path: ends in ``.png``; a missing folder is created.

    Raises:
      UserError: if the name has another ending, or the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    path = paths.parse(path)
    if path.suffix.lower() != ".png":
        raise UserError(
            f"figures are PNG files, got {str(path)!r}: choose a name that ends in .png"
        )
    figure.set_dpi(min(figure.get_dpi(), _MAX_PIXELS / max(figure.get_size_inches())))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    encoded = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(encoded, format="PNG")
    try:
        paths.write_bytes(path, encoded.getvalue())
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): choose another --out"
        ) from error
