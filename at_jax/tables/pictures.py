"""The pictures of a table: the error of every seed of every row, and the error over the epochs."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from at_jax.figures import canvas
from at_jax.report import say
from at_jax.tables.paper import VERIFIED

# For rows of one method, which differ in their maps, say.
_VARIANTS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#A89800")


def draw(summary: Mapping[str, Any], out: pathlib.Path) -> list[pathlib.Path]:
    """Draw errors.png and curves.png of what is finished.

    Args:
      summary: of :func:`at_jax.tables.summary.summarise`.
      out: the folder.

    Returns:
      The files; none where nothing is finished, or matplotlib is missing.
    """
    rows = [row for row in summary["rows"] if row["seeds"]]
    if not rows:
        return []
    try:
        with canvas.style():
            errors = _errors(summary, rows, out / "errors.png")
            curves = _curves(summary, rows, out / "curves.png")
    except ModuleNotFoundError as error:
        say(f"no pictures: {error}")
        return []
    return [errors, curves]


def _colours(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A colour for each row of a pair: its method's, unless rows share a method."""
    methods = [row["method"] for row in rows]
    variants = iter(_VARIANTS)
    return [
        canvas.colour(method) if methods.count(method) == 1 else next(variants)
        for method in methods
    ]


def _pairs(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    return {
        pair: [row for row in rows if row["pair"] == pair]
        for pair in dict.fromkeys(row["pair"] for row in rows)
    }


def _what(summary: Mapping[str, Any]) -> str:
    return f"{summary['data']}, {summary['epochs']} epochs"


def _errors(summary, rows, path: pathlib.Path) -> pathlib.Path:
    pairs = _pairs(rows)
    has_paper = any(row["paper"] for row in rows)
    lines = len(rows) + len(pairs)  # a pair takes a line for its name
    figure, axes = canvas.figure(
        7.6,
        1.3 + 0.3 * lines,
        columns=2 if has_paper else 1,
        sharey=True,
        **({"width_ratios": (5, 2)} if has_paper else {}),
    )
    ours, paper = axes[0, 0], axes[0, -1]
    ticks, labels, place = [], [], 0
    for pair, members in pairs.items():
        ticks, labels, place = [*ticks, place], [*labels, pair], place + 1
        for row, colour in zip(members, _colours(members), strict=True):
            values = [seed["test_error"] for seed in row["seeds"]]
            spread = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else [0.0]
            ours.scatter(values, place + np.asarray(spread), s=22, color=colour, alpha=0.75, lw=0)
            ours.vlines(row["median"], place - 0.36, place + 0.36, color=colour, lw=3)
            if row["paper"]:
                known = row["paper"]["status"] == VERIFIED
                face = colour if known else "white"
                paper.scatter(row["paper"]["error"], place, s=34, marker="D", fc=face, ec=colour)
            ticks, labels, place = [*ticks, place], [*labels, row["label"]], place + 1
    ours.set_yticks(ticks, labels)
    ours.tick_params(axis="y", length=0)
    ours.set_ylim(place - 0.4, -0.6)
    for tick, text in zip(ours.get_yticklabels(), labels, strict=True):
        tick.set_fontweight("bold" if text in pairs else "normal")
    ours.set_title(f"measured here: {_what(summary)}", loc="left")
    ours.set_xlabel(f"{summary['measured_on']} error, percent: a dot a seed, a bar the median")
    ours.grid(axis="x", color="#dddddd", lw=0.6)
    ours.set_axisbelow(True)
    if has_paper:
        after = f", {summary['paper_epochs']} epochs" if summary["paper_epochs"] else ""
        paper.set_title(f"paper{after}", loc="left")
        paper.set_xlabel("percent, median of 5\n(hollow: unverified)")
        paper.tick_params(axis="y", length=0, labelleft=False)
        paper.grid(axis="x", color="#dddddd", lw=0.6)
        paper.margins(x=0.2)
        paper.set_axisbelow(True)
    canvas.save(figure, path)
    return path


def _curves(summary, rows, path: pathlib.Path) -> pathlib.Path:
    pairs = _pairs(rows)
    columns = min(2, len(pairs))
    lines = math.ceil(len(pairs) / columns)
    figure, axes = canvas.figure(4.2 * columns + 0.6, 3.2 * lines + 0.4, lines, columns)
    for axis in axes.flat[len(pairs) :]:
        axis.set_axis_off()
    for axis, (pair, members) in zip(axes.flat, pairs.items(), strict=False):
        for row, colour in zip(members, _colours(members), strict=True):
            errors = np.array([seed["errors"] for seed in row["seeds"]])  # (seeds, epochs)
            epochs = np.arange(1, errors.shape[1] + 1)
            label = f"{row['label']} ({len(errors)} seed{'s'[: len(errors) > 1]})"
            axis.plot(epochs, np.median(errors, axis=0), color=colour, lw=1.6, label=label,
                      marker="o" if len(epochs) < 15 else "", markersize=3)  # fmt: skip
            axis.fill_between(epochs, errors.min(0), errors.max(0), color=colour, alpha=0.18, lw=0)
        axis.set_title(f"{pair}, {_what(summary)}", loc="left", fontsize=9)
        axis.set_xlabel("epoch (line: median, band: lowest to highest seed)")
        axis.set_ylabel(f"{summary['measured_on']} error, percent")
        axis.grid(color="#e4e4e4", lw=0.6)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(fontsize=8)
    canvas.save(figure, path)
    return path
