"""Losses and errors over the epochs, one line per run."""

import collections
import dataclasses
import itertools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from at_jax import paths, terms
from at_jax.errors import UserError
from at_jax.figures import style
from at_jax.training.files import run_files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["History", "draw", "in_order", "read", "run_names"]

_TITLES = {
    "test_error": "test error (%)",
    "train_error": "training error (%)",
    "loss": "loss (weighted sum)",
}
_TERM, _HARD = "loss/", "loss/cross_entropy"


@dataclasses.dataclass(frozen=True, eq=False)
class History:
    """Metrics of one run.

    Attributes:
      name: of its folder.
      method: as in ``at+kd``.
      network: name of the student.
      seed: of the run.
      lines: of metrics.jsonl, one mapping per epoch.
      teacher_error: in percent; None without a teacher, where it is not defined, or before the end.
      evaluated_on: ``"test"`` or ``"validation"``.
      workdir: of the run.
      teacher: workdir of its teacher, where one would be; None if it is not known.
    """

    name: str
    method: str
    network: str
    seed: int
    lines: list[dict[str, Any]]
    teacher_error: float | None = None
    evaluated_on: str = "test"
    workdir: pathlib.Path | None = None
    teacher: pathlib.Path | None = None


def read(workdir: str | pathlib.Path) -> History:
    """Read the metrics of a run, finished or not.

    Raises:
      UserError: if there is no run, or it has not finished an epoch.
    """
    workdir = paths.parse(workdir)
    config, lines = run_files.read_config(workdir), run_files.read_metrics(workdir)
    if not lines:
        raise UserError(f"{workdir} has no finished epoch yet: draw it later, or leave it out")
    result = run_files.read_result(workdir) or {}
    passed = run_files.read_arguments(workdir).get("student")
    network = passed["class"].partition(":")[2] if passed else config["student"]
    held_out = config["data"]["validation_examples"]
    teacher = config["teacher"]["checkpoint"] or workdir / run_files.TEACHER
    return History(
        name=paths.resolve(workdir).name,
        method=run_files.read_method(workdir),
        network=result.get("student", network),
        seed=config["seed"],
        lines=lines,
        teacher_error=result.get("teacher_test_error"),
        evaluated_on=result.get("evaluated_on", "validation" if held_out else "test"),
        workdir=paths.resolve(workdir),
        teacher=paths.resolve(teacher),
    )


def in_order(runs: Sequence[History]) -> list[History]:
    """Sort runs by method: labels only first, then in the order of the terms."""
    known = list(terms.TERMS)

    def place(run: History) -> list[int]:
        names = [] if run.method == "none" else run.method.split("+")
        return sorted(known.index(name) if name in known else len(known) for name in names)

    return sorted(runs, key=place)


def draw(runs: Sequence[History], *, columns: int = 2) -> "Figure":
    """Draw the test error, the training error, and every term of the loss without its weight.

    Args:
      runs: one line each, in the color of its method; runs of one method differ by their dashes.
      columns: of panels, at most; 1 makes a narrow figure.

    Returns:
      A figure for :func:`at_jax.figures.style.save`. Call this inside ``style.context()``.
    """
    keys = dict.fromkeys(key for run in runs for line in run.lines for key in line)
    # metrics.jsonl has them in alphabetical order: the loss that all methods have comes first.
    losses = sorted((key for key in keys if key.startswith(_TERM)), key=lambda key: key != _HARD)
    panels = ["test_error", "train_error", *(losses if len(losses) > 1 else ["loss"])]
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    width = 7.6 if columns > 1 else 4.2
    figure, axes = style.figure(width, 2.5 * rows + 0.5 + 0.2 * len(runs), rows, columns)
    names, colors = run_names(runs), _colors(runs)
    used: dict[str, Any] = collections.defaultdict(lambda: itertools.cycle(style.DASHES))
    dashes = [next(used[color]) for color in colors]
    for panel, key in zip(axes.ravel(), panels, strict=False):
        for run, name, color, dash in zip(runs, names, colors, dashes, strict=True):
            _draw_run(panel, run, key, color=color, linestyle=dash, label=name)
        if key == "test_error":
            _draw_teachers(panel, runs)
        _finish(panel, key, runs)
    for panel in axes.ravel()[len(panels) :]:
        panel.set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns if len(labels) > 3 else 1
    )
    return figure


def _draw_run(panel: "Axes", run: History, key: str, **properties: Any) -> None:
    lines = [line for line in run.lines if line.get(key) is not None]
    epochs, values = [line["epoch"] for line in lines], [line[key] for line in lines]
    marker = "o" if len(lines) == 1 else ""  # a line of one point is invisible
    panel.plot(epochs, values, marker=marker, linewidth=1.6, **properties)


def _draw_teachers(panel: "Axes", runs: Sequence[History]) -> None:
    errors = sorted({round(run.teacher_error, 2) for run in runs if run.teacher_error is not None})
    for error in errors:
        panel.axhline(
            error,
            color=style.TEACHER_COLOR,
            linewidth=1,
            linestyle=(0, (1, 2)),
            label=f"teacher, {error:.2f} %",
        )


def _finish(panel: "Axes", key: str, runs: Sequence[History]) -> None:
    """Set the title, the axes and their scales."""
    title = _TITLES.get(key) or key.removeprefix(_TERM).replace("_", " ") + " (unweighted)"
    if key == "test_error":
        title = title.replace("test", " or ".join(sorted({run.evaluated_on for run in runs})))
    panel.set_title(title, loc="left")
    panel.set_xlabel("epoch")
    epochs = [line["epoch"] for run in runs for line in run.lines]
    style.use_epochs(panel, epochs)
    panel.grid(alpha=0.25, linewidth=0.6)
    drawn = [np.asarray(line.get_ydata(), float) for line in panel.lines]
    style.use_readable_scale(panel, np.concatenate(drawn).tolist())


def _colors(runs: Sequence[History]) -> list[str]:
    """Color of each run: that of its method. Different methods have different colors."""
    found: dict[str, str] = {}
    for run in runs:
        used = {*found.values(), style.TEACHER_COLOR}
        free = [terms.color(run.method), *style.VARIANT_COLORS]
        color = next((color for color in free if color not in used), free[0])
        found.setdefault(terms.title(run.method), color)
    return [
        style.TEACHER_COLOR if _is_teacher(run, runs) else found[terms.title(run.method)]
        for run in runs
    ]


def _is_teacher(run: History, runs: Sequence[History]) -> bool:
    """Whether a run is the teacher of another run in the figure."""
    return run.workdir is not None and any(
        other.teacher == run.workdir for other in runs if other is not run
    )


def run_names(runs: Sequence[History]) -> list[str]:
    """Name runs by their methods, and by what else distinguishes them."""
    names = ["teacher" if _is_teacher(run, runs) else terms.title(run.method) for run in runs]
    if len({run.network for run in runs}) > 1:  # named for all runs, or for none
        names = [f"{name}, {run.network}" for name, run in zip(names, runs, strict=True)]
    details: tuple[Callable[[Sequence[History]], list[str]], ...] = (
        lambda same: [f"seed {run.seed}" for run in same],
        lambda same: [run.name for run in same],
        _distinct_parts,
    )
    for details_of in details:
        same: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            same.setdefault(name, []).append(index)
        for name, members in same.items():
            found = details_of([runs[index] for index in members])
            if len(set(found)) > 1:
                for index, detail in zip(members, found, strict=True):
                    names[index] = f"{name}, {detail}"
    return names


def _distinct_parts(runs: Sequence[History]) -> list[str]:
    """The part of each workdir that remains without what all of them begin and end with."""
    parts = [run.workdir.parts if run.workdir else (run.name,) for run in runs]
    shortest = min(map(len, parts))

    def common(step: int) -> int:
        columns = zip(*(each[::step] for each in parts), strict=False)
        return next((n for n, column in enumerate(columns) if len(set(column)) > 1), shortest)

    start = common(1)
    end = min(common(-1), shortest - start)
    if min(len(each) for each in parts) == start + end:  # one run is in another
        start = max(start - 1, 0)
    return ["/".join(each[start : len(each) - end]) for each in parts]
