"""What all drawings share: colours and names of the methods, empty figures, files.

Figures are matplotlib's own objects without pyplot, so nothing here needs a display or leaves a
global state behind. Matplotlib is imported when the first figure is made, not before.
"""

import contextlib
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from at_jax import methods

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by the colour-blind too (their yellow darkened: it is for white
# paper). Lines of one colour differ by their dashes, see `curves`.
METHOD_COLOURS = {
    "none": "#767676",
    "kd": "#0072B2",
    "at": "#D55E00",
    "at+kd": "#009E73",
    "f_actt": "#E69F00",
    "gradient_at": "#CC79A7",
    "flip_symmetry": "#56B4E9",
    "min_l2": "#A89800",
    "gradient_at+kd": "#7A3E8F",
}
TEACHER_COLOUR = "#000000"
_OTHER = "#6B3E26"  # combinations that have no colour of their own
RIGHT, WRONG = "#0072B2", "#D55E00"  # blue and vermilion: red and green are one to many
MAP_COLOURS = "magma"  # perceptually uniform: equal steps of the value look equal

_NAMES = {
    "none": "student alone",
    "kd": "distillation",
    "at": "attention transfer",
    "f_actt": "activation transfer",
    "gradient_at": "gradient transfer",
    "flip_symmetry": "flip symmetry",
    "min_l2": "min-l2",
}
# A user's own style must not turn labels into LaTeX, class names with a dollar into formulas, or
# background and text into one colour.
_STYLE = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so it is never missing
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,
}
DPI = 110.0
_MOST_PIXELS = 2400  # of the longer side: what a screen shows, and a file of some hundred KB


def _ordered(method: str) -> str:
    """The parts in the order of :data:`at_jax.methods.PARTS`: kd+at is at+kd written otherwise."""
    parts = methods.parts_of(method)
    order = ("at", "f_actt", "gradient_at", "flip_symmetry", "min_l2", "kd")
    return "+".join(sorted(parts, key=order.index)) or "none"


def colour(method: str) -> str:
    """The colour of a method in every drawing.

    Args:
      method: as in a config: ``"none"``, ``"at"``, ``"at+kd"``, in any order.

    Returns:
      ``"#RRGGBB"``.

    Raises:
      ValueError: if there is no such method.

    >>> colour("at"), colour("kd+at") == colour("at+kd")
    ('#D55E00', True)
    """
    return METHOD_COLOURS.get(_ordered(method), _OTHER)


def label(method: str) -> str:
    """What a drawing calls a method.

    Args:
      method: as in a config.

    Returns:
      Words.

    Raises:
      ValueError: if there is no such method.

    >>> label("none"), label("kd+at")
    ('student alone', 'attention transfer + distillation')
    """
    return " + ".join(_NAMES[part] for part in _ordered(method).split("+"))


def _matplotlib():
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("drawing needs matplotlib: pip install matplotlib") from error
    return matplotlib


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Matplotlib's defaults with ours on top, whatever the user's matplotlibrc says; then his again.

    Text takes its font when it is made, so what draws stands inside of this, not :func:`save` alone.

    Raises:
      ModuleNotFoundError: if matplotlib is not installed.
    """
    matplotlib = _matplotlib()

    with matplotlib.rc_context(), warnings.catch_warnings():
        # Signs that the font lacks (a class named in another script) are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcParams.update({**matplotlib.rcParamsDefault, **_STYLE, "backend": "agg"})
        yield


def figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **kwargs: Any
) -> tuple["Figure", np.ndarray]:
    """An empty figure, laid out so that no label is cut.

    Args:
      width: in inches.
      height: in inches.
      rows: of axes.
      columns: of axes.
      **kwargs: for ``Figure.subplots``: ``sharex``, ``width_ratios`` ...

    Returns:
      The figure and its axes, an array ``(rows, columns)``.

    Raises:
      ModuleNotFoundError: if matplotlib is not installed.
    """
    _matplotlib()
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    return made, made.subplots(rows, columns, squeeze=False, **kwargs)


def save(figure: "Figure", path: str | pathlib.Path, *, photographs: bool = False) -> None:
    """Write a figure as a PNG file, atomically: a reader sees the old file or the new one.

    Args:
      figure: of :func:`figure`.
      path: ends in ``.png``; its folder is made where it is missing.
      photographs: keep all colours. A chart is as well told by 256 of them, in a third of the size.

    Raises:
      ValueError: if the name ends otherwise, or the file cannot be written.
    """
    path = pathlib.Path(path).expanduser()
    if path.suffix.lower() != ".png":
        raise ValueError(f"a figure is written as .png, got {str(path)!r}: choose another name")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(min(DPI, _MOST_PIXELS / max(figure.get_size_inches())))
    drawn = FigureCanvasAgg(figure)
    drawn.draw()
    picture = Image.fromarray(np.asarray(drawn.buffer_rgba())).convert("RGB")
    if not photographs:
        picture = picture.quantize(256)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(temporary, format="PNG")
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(
            f"{path} cannot be written ({error.strerror}): choose another --out"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
