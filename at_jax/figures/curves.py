"""Losses and errors over the epochs, a line a run."""

import collections
import dataclasses
import itertools
import math
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from at_jax import run_directory
from at_jax.figures import canvas, networks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DASHES = ("-", "--", ":", "-.")
_TITLES = {
    "test_error": "test error, percent",
    "train_error": "training error, percent",
    "loss": "loss, terms weighted",
}
_TERM = "loss/"


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What is drawn of a run.

    Attributes:
      name: its folder's.
      config: its config.json.
      lines: its metrics.jsonl, a mapping an epoch.
      teacher_error: in percent; None without a teacher or before the run's end.
      evaluated_on: ``"test"`` or ``"validation"``.
    """

    name: str
    config: dict[str, Any]
    lines: list[dict[str, Any]]
    teacher_error: float | None = None
    evaluated_on: str = "test"

    @property
    def method(self) -> str:
        """As in the config."""
        return self.config["method"]


def read(workdir: str | pathlib.Path) -> Run:
    """Read a run's files; it may still be going.

    Raises:
      ValueError: if there is no run, or it has not finished an epoch.
    """
    workdir = pathlib.Path(workdir).expanduser()
    config, lines = networks.stored_config(workdir), run_directory.read_metrics(workdir)
    if not lines:
        raise ValueError(f"{workdir} has no finished epoch yet: draw it later, or leave it out")
    result = run_directory.read_result(workdir) or {}
    return Run(
        workdir.resolve().name,
        config,
        lines,
        result.get("teacher_test_error"),
        result.get("evaluated_on", "validation" if _holds_out(config) else "test"),
    )


def draw(runs: Sequence[Run]) -> "Figure":
    """Panels: the test error, the training error, and every term of the loss before its weight.

    Args:
      runs: a line each, in the colour of its method; runs of one method differ by their dashes.

    Returns:
      A figure to save with :func:`at_jax.figures.canvas.save`, inside of ``canvas.style()``.
    """
    keys = dict.fromkeys(key for run in runs for line in run.lines for key in line)
    terms = [key for key in keys if key.startswith(_TERM)]
    panels = ["test_error", "train_error", *(terms if len(terms) > 1 else ["loss"])]
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, axes = canvas.figure(7.6, 2.5 * rows + 0.5 + 0.2 * len(runs), rows, columns)
    names, dashes = _names(runs), collections.defaultdict(lambda: itertools.cycle(_DASHES))
    styles = [next(dashes[canvas.colour(run.method)]) for run in runs]
    for panel, key in zip(axes.ravel(), panels, strict=False):
        for run, name, dash in zip(runs, names, styles, strict=True):
            _line(panel, run, key, canvas.colour(run.method), dash, name)
        if key == "test_error":
            _teachers(panel, runs)
        _finish(panel, key, runs)
    for panel in axes.ravel()[len(panels) :]:
        panel.set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2 if len(labels) > 3 else 1)
    return figure


def _line(panel, run: Run, key: str, colour: str, dash: str, name: str) -> None:
    points = [(line["epoch"], line.get(key)) for line in run.lines]
    points = [(epoch, value) for epoch, value in points if value is not None]
    marker = "o" if len(points) == 1 else ""  # a line of one point is invisible
    panel.plot(*zip(*points, strict=True) if points else ([], []), color=colour, linestyle=dash,
               marker=marker, label=name, linewidth=1.6)  # fmt: skip


def _teachers(panel, runs: Sequence[Run]) -> None:
    errors = sorted({round(run.teacher_error, 2) for run in runs if run.teacher_error is not None})
    for error in errors:
        panel.axhline(
            error,
            color=canvas.TEACHER_COLOUR,
            linewidth=1,
            linestyle=(0, (1, 2)),
            label=f"teacher, {error:.2f} %",
        )


def _finish(panel, key: str, runs: Sequence[Run]) -> None:
    """Title, axes and their ranges."""
    title = _TITLES.get(key) or key.removeprefix(_TERM).replace("_", " ") + ", unweighted"
    if key == "test_error" and all(run.evaluated_on == "validation" for run in runs):
        title = title.replace("test", "validation")
    panel.set_title(title, loc="left")
    panel.set_xlabel("epoch")
    values = [value for run in runs for line in run.lines if (value := line.get(key)) is not None]
    if key.endswith("_error"):
        panel.set_ylim(bottom=0)
    elif values and min(values) > 0 and max(values) > 10 * min(values):
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter("{x:g}")  # the default one writes formulas
    elif values and min(values) >= 0:
        panel.set_ylim(bottom=0)
    panel.locator_params(axis="x", integer=True)
    panel.grid(alpha=0.25, linewidth=0.6)


def _names(runs: Sequence[Run]) -> list[str]:
    """By method, and by what else it takes to tell runs of one method apart."""
    names = [canvas.label(run.method) for run in runs]
    details = (
        lambda run: run.config["student"],
        lambda run: f"seed {run.config['seed']}",
        lambda run: run.name,
    )
    for detail in details:
        counts = collections.Counter(names)
        if all(count == 1 for count in counts.values()):
            break
        if len({detail(run) for run in runs}) > 1:
            names = [f"{name}, {detail(run)}" for name, run in zip(names, runs, strict=True)]
    return names


def _holds_out(stored: dict[str, Any]) -> bool:
    return bool(stored.get("data", {}).get("validation_examples"))
