"""Figure of a search: search.png has the validation error over the values that were tried."""

import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from at_jax import terms
from at_jax.figures import style
from at_jax.tables.changes import text_of
from at_jax.tables.rows import by_pair
from at_jax.training.console import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

_COLUMNS = 4
_MARKERS = "osD^vP"  # of the lines of a panel
_CAPTION_WIDTH = 5.6  # in inches
# A row of numbers in table.json: here a trial.
_Row = Mapping[str, Any]


def draw(summary: Mapping[str, Any], path: pathlib.Path) -> None:
    """Draw one panel for each pair and label, with every seed as a point.

    Args:
      summary: of a search, see :func:`at_jax.tables.summary.summarize`.
      path: of the PNG file.
    """
    space = summary["search"]["space"]
    panels = [
        (pair, label, [row for row in rows if row["label"] == label])
        for pair, rows in by_pair(summary["rows"]).items()
        for label in dict.fromkeys(row["label"] for row in rows)
    ]
    columns = min(_COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    width = max(2.5 * columns + 0.4, _CAPTION_WIDTH)
    figure, axes = style.figure(width, 2.3 * lines + 0.6, lines, columns, sharey=True)
    for panel in axes.flat[len(panels) :]:
        panel.set_axis_off()
    best = {pair: _lowest(trials) for pair, _, trials in panels if trials[0]["method"] == "none"}
    several = len({pair for pair, _, _ in panels}) > 1
    for panel, (pair, label, trials) in zip(axes.flat, panels, strict=False):
        if best.get(pair) is not None:
            panel.axhline(best[pair], color="#777777", lw=0.8, ls="--")
        _draw_trials(panel, trials, space[label], summary["search"]["chosen"].get(label))
        title = f"{label}\n{style.pair_title(pair, 30)}" if several else label
        panel.set_title(title, loc="left", fontsize=9)
    seeds = [seed["test_error"] for row in summary["rows"] for seed in row["seeds"]]
    style.use_readable_scale(axes[0, 0], seeds)  # of all panels: they share the axis
    for panel in axes[:, 0]:
        panel.set_ylabel(f"{summary['measured_on']} error, percent", fontsize=8)
    figure.supxlabel(
        f"{summary['data']}, {counted(summary['epochs'], 'epoch')}; points: seeds; lines: means\n"
        "circle: chosen; cross: diverged; gray dashes: lowest mean of labels only"
    )
    style.save(figure, path)


def _lowest(trials: Sequence[_Row]) -> float | None:
    found = [mean for row in trials if (mean := _mean(row)) is not None]
    return min(found, default=None)


def _mean(row: _Row) -> float | None:
    """Mean of a trial; None if it is not finished, or a seed diverged: the search does not choose it."""
    return None if row["diverged"] else row["mean"]


def _draw_trials(
    panel: "Axes",
    trials: Sequence[_Row],
    keys: Mapping[str, Sequence[str]],
    chosen: Mapping[str, Any] | None,
) -> None:
    """Draw the key with the most values along the axis, and a line for each value of the others."""
    along = max(keys, key=lambda key: len(keys[key]))
    values = sorted(keys[along], key=_order)
    color = terms.color(trials[0]["method"])
    curves: dict[str, list[tuple[int, _Row]]] = {}
    for row in trials:
        others = ", ".join(f"{key}={text_of(row['changes'][key])}" for key in keys if key != along)
        place = values.index(text_of(row["changes"][along]))
        curves.setdefault(others, []).append((place, row))
    step = min(0.12, 0.6 / max(len(curves) - 1, 1))  # from one line to the next
    for index, (others, found) in enumerate(curves.items()):
        means = {place: mean for place, row in found if (mean := _mean(row)) is not None}
        # Lines, and their seeds, next to one another.
        aside = step * (index - (len(curves) - 1) / 2)
        marker = _MARKERS[index % len(_MARKERS)]
        places = sorted(means)
        panel.plot(
            [place + aside for place in places], [means[place] for place in places], color=color, lw=1.3,
            label=others, ls=style.DASHES[index % len(style.DASHES)],
        )  # fmt: skip
        for place, row in found:
            _draw_trial(panel, place + aside, row, color, marker)
            if chosen and row["name"] in chosen["rows"]:
                panel.scatter([place + aside], row["mean"], s=90, fc="none", ec=color, lw=1.3)
    panel.set_xticks(range(len(values)), values, fontsize=8 if len(values) < 6 else 7)
    panel.set_xlim(-0.4, len(values) - 0.6)
    panel.set_xlabel(along, fontsize=8)
    panel.tick_params(axis="y", labelsize=8, labelleft=True)
    panel.grid(axis="y", color="#e4e4e4", lw=0.6)
    if any(curves):
        handles: Any = panel.legend(fontsize=7).legend_handles
        for handle, marker in zip(handles, itertools.cycle(_MARKERS), strict=False):
            handle.set(marker=marker, markersize=4)


def _draw_trial(panel: "Axes", place: float, row: _Row, color: str, marker: str) -> None:
    errors = [seed["test_error"] for seed in row["seeds"]]
    panel.scatter([place] * len(errors), errors, s=16, color=color, marker=marker, lw=0)
    if row["diverged"]:
        # Above the panel: the error is not known.
        transform = panel.get_xaxis_transform()
        panel.scatter(
            [place], [1.0], s=30, color=color, marker="x", transform=transform, clip_on=False
        )


def _order(text: str) -> tuple[int, float, str]:
    """Numbers by size, then everything else."""
    try:
        return 0, float(text), ""
    except ValueError:
        return 1, 0.0, text
