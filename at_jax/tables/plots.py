"""Figures of a table.

errors.png has the error of every seed, curves.png the error over the epochs, and labels.png the error over
the number of labels, for tables whose rows differ in it. A search has search.png instead.
"""

import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from at_jax import terms
from at_jax.errors import UserError
from at_jax.figures import style
from at_jax.tables import trial_plots
from at_jax.tables.paper import VERIFIED, Source
from at_jax.tables.rows import by_pair
from at_jax.training.console import counted, log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

# A longer legend would cover the curves.
_LEGEND_LINES = 7
# A row of numbers in table.json.
_Row = Mapping[str, Any]


def draw(summary: Mapping[str, Any], out: pathlib.Path) -> list[pathlib.Path]:
    """Draw the finished runs.

    Args:
      summary: result of :func:`at_jax.tables.summary.summarize`.
      out: folder of the table.

    Returns:
      Paths of errors.png, curves.png and, for several numbers of labels, labels.png; of search.png for a
      search; empty if no run is finished or matplotlib is not installed.
    """
    rows = [row for row in summary["rows"] if row["seeds"]]
    if not rows:
        return []
    is_search = "search" in summary
    paths = [out / "search.png"] if is_search else [out / "errors.png", out / "curves.png"]
    try:
        with style.context():
            if is_search:
                trial_plots.draw(summary, paths[0])
                return paths
            _draw_errors(summary, rows, paths[0])
            _draw_curves(summary, rows, paths[1])
            if len({_labels(row) for row in rows}) > 1:
                paths.append(out / "labels.png")
                _draw_labels(summary, rows, paths[-1])
    except UserError as error:
        log(f"No figures: {error}")
        return []
    return paths


def _colors(rows: Sequence[_Row]) -> list[str]:
    """Color of each row of a pair: that of its method, or another one where it would repeat."""
    methods = [row["method"] for row in rows]
    own = [terms.color(method) for method in methods]
    plain = [
        (row["label"] == row["method"] or methods.count(row["method"]) == 1)
        and own[index] not in own[:index]
        for index, row in enumerate(rows)
    ]
    taken = {color for color, is_plain in zip(own, plain, strict=True) if is_plain}
    free = [color for color in style.VARIANT_COLORS if color not in taken]
    variants = itertools.cycle(free or style.VARIANT_COLORS)
    return [
        color if is_plain else next(variants) for color, is_plain in zip(own, plain, strict=True)
    ]


def _setting(summary: Mapping[str, Any]) -> str:
    return f"{summary['data']}, {counted(summary['epochs'], 'epoch')}"


def _draw_errors(summary: Mapping[str, Any], rows: Sequence[_Row], path: pathlib.Path) -> None:
    """Draw one line for each row: its seeds and their median, and the paper's result next to them."""
    pairs = by_pair(rows)
    has_paper = any(row["paper"] for row in rows)
    lines = len(rows) + len(pairs)  # each pair has a line for its name
    widths = {"columns": 2, "width_ratios": (5, 2)} if has_paper else {"columns": 1}
    figure, axes = style.figure(7.6, 1.3 + 0.3 * lines, sharey=True, **widths)
    measured, paper = axes[0, 0], axes[0, -1]
    labels: list[str] = []
    for pair, members in pairs.items():
        _draw_pair(measured, pair, len(labels))
        labels.append("")
        for row, color in zip(members, _colors(members), strict=True):
            _draw_seeds(measured, row, len(labels), color)
            if row["paper"]:
                face = color if row["paper"]["status"] == VERIFIED else "white"
                paper.scatter(
                    row["paper"]["error"], len(labels), s=34, marker="D", fc=face, ec=color
                )
            labels.append(row["label"])
    measured.set_yticks(range(lines), labels)
    measured.tick_params(axis="y", length=0)
    measured.set_ylim(lines - 0.4, -0.6)
    errors = [seed["test_error"] for row in rows for seed in row["seeds"]]
    style.use_readable_scale(measured, errors, axis="x")
    measured.set_title(f"measured here: {_setting(summary)}", loc="left")
    measured.set_xlabel(f"{summary['measured_on']} error, percent (dots: seeds, bars: median)")
    _draw_grid(measured)
    if has_paper:
        source, after = Source(**summary["source"]), summary["paper_epochs"]
        words = {row["paper"]["status"] for row in rows if row["paper"]} - {VERIFIED}
        notes = [
            f"percent, {source.statistic}" if source.statistic else "percent",
            f"after {after} epochs" if after else "",
            f"(hollow: {', '.join(sorted(words))})" if words else "",
        ]
        paper.set_title(source.label, loc="left")
        paper.set_xlabel("\n".join(filter(None, notes)))
        paper.tick_params(axis="y", length=0, labelleft=False)
        paper.margins(x=0.2)
        _draw_grid(paper)
    style.save(figure, path)


def _draw_pair(axes: "Axes", pair: str, line: int) -> None:
    """Write the name of a pair in a line of its own, on two lines if it is long."""
    text = style.pair_title(pair)
    written = axes.text(
        0.01, line, text, transform=axes.get_yaxis_transform(), va="center", fontweight="bold",
        fontsize=9 if text == pair else 7.5,
    )  # fmt: skip
    written.set_in_layout(False)


def _draw_seeds(axes: "Axes", row: _Row, line: int, color: str) -> None:
    values = [seed["test_error"] for seed in row["seeds"]]
    # Spread over the line, so that equal errors do not hide one another.
    spread = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(1)
    axes.scatter(values, line + spread, s=22, color=color, alpha=0.75, lw=0)
    axes.vlines(row["median"], line - 0.36, line + 0.36, color=color, lw=3)


def _draw_grid(axes: "Axes") -> None:
    axes.grid(axis="x", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)


def _draw_curves(summary: Mapping[str, Any], rows: Sequence[_Row], path: pathlib.Path) -> None:
    """Draw one panel for each pair, with the median and the range of the seeds of each row."""
    pairs = by_pair(rows)
    columns = min(2, len(pairs))
    lines = math.ceil(len(pairs) / columns)
    is_long = max(map(len, pairs.values())) > _LEGEND_LINES
    width = 4.2 + 2.2 * is_long
    figure, axes = style.figure(width * columns + 0.6, 3.2 * lines + 0.4, lines, columns)
    for panel in axes.flat[len(pairs) :]:
        panel.set_axis_off()
    for panel, (pair, members) in zip(axes.flat, pairs.items(), strict=False):
        for row, color in zip(members, _colors(members), strict=True):
            # An epoch whose line was lost leaves a gap: its error is None, here NaN.
            found = np.array([seed["errors"] for seed in row["seeds"]], float)  # (seeds, epochs)
            errors = np.ma.masked_invalid(found)
            epochs = np.arange(1, errors.shape[1] + 1)
            label = f"{row['label']} ({len(errors)} {'seeds' if len(errors) > 1 else 'seed'})"
            panel.plot(epochs, np.ma.median(errors, axis=0), color=color, lw=1.6, label=label,
                       marker="o" if len(epochs) < 15 else "", markersize=3)  # fmt: skip
            lowest, highest = errors.min(0), errors.max(0)
            panel.fill_between(epochs, lowest, highest, color=color, alpha=0.18, lw=0)
            if len(epochs) == 1:  # a band without a width
                panel.vlines(epochs, lowest, highest, color=color, alpha=0.4, lw=3)
        style.use_readable_scale(
            panel,
            [e for row in members for s in row["seeds"] for e in s["errors"] if e is not None],
        )
        style.use_epochs(panel, range(1, summary["epochs"] + 1))
        panel.set_title(style.pair_title(pair), loc="left", fontsize=9)
        panel.set_xlabel("epoch (line: median, band: lowest to highest seed)")
        panel.set_ylabel(f"{summary['measured_on']} error, percent")
        panel.grid(color="#e4e4e4", lw=0.6)
        outside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.02)} if is_long else {}
        panel.legend(fontsize=8, **outside)
    figure.suptitle(_setting(summary))
    style.save(figure, path)


def _labels(row: _Row) -> int:
    """Number of labeled images of the student; 0 for all."""
    return row["changes"].get("data.train_examples", 0)


def _draw_labels(summary: Mapping[str, Any], rows: Sequence[_Row], path: pathlib.Path) -> None:
    """Draw one panel for each pair: a line through the means of each method, every seed as a point."""
    pairs: dict[tuple[str, str], dict[str, list[_Row]]] = {}
    for row in rows:
        methods = pairs.setdefault((row["student"], row["teacher"]), {})
        methods.setdefault(row["method"], []).append(row)
    figure, axes = style.figure(7.6 * len(pairs), 4.4, 1, len(pairs))
    for panel, ((student, teacher), methods) in zip(axes.flat, pairs.items(), strict=True):
        # In the legend, methods have the order of the lines at the fewest labels.
        for method, members in sorted(methods.items(), key=lambda each: -each[1][0]["mean"]):
            color = terms.color(method)
            counts = [_labels(row) for row in members]
            label = terms.title(method)
            panel.plot(counts, [row["mean"] for row in members], color=color, lw=1.6, label=label)
            for row in members:
                errors = [seed["test_error"] for seed in row["seeds"]]
                panel.scatter([_labels(row)] * len(errors), errors, s=16, color=color, lw=0)
        for run in (t["run"] for t in summary["teachers"] if t["teacher"] == teacher and t["run"]):
            panel.axhline(run["test_error"], color="#555555", lw=1, ls="--", label="teacher")
        counts = sorted({_labels(row) for members in methods.values() for row in members})
        panel.set_xscale("log")
        panel.set_xticks(counts, [f"{count:,}" for count in counts])
        panel.minorticks_off()
        panel.set_title(style.pair_title(f"{student} <- {teacher}"), loc="left", fontsize=9)
        panel.set_xlabel("labeled images of the student (line: mean, points: seeds)")
        panel.set_ylabel(f"{summary['measured_on']} error, percent")
        panel.set_ylim(bottom=0)
        panel.grid(color="#e4e4e4", lw=0.6)
        panel.legend(fontsize=8)
    figure.suptitle(_setting(summary))
    style.save(figure, path)
