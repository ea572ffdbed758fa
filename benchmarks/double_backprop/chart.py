"""Bar chart of the measurements."""

import pathlib
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

__all__ = ["draw", "label"]

# Key of a row, label and color; of Okabe and Ito's colors, which color-blind readers can distinguish.
_BARS = (
    ("time_ratio", "time", "#0072B2"),
    ("flop_ratio", "FLOPs", "#E69F00"),
    ("predicted_ratio", "pass count", "#999999"),
)


def label(row: str) -> str:
    """Name of a row in the table and the chart."""
    return "plain" if row == "none" else row


def draw(record: Mapping[str, Any], rows: Mapping[str, Any], path: pathlib.Path) -> None:
    """Draw time ratio, FLOP ratio and pass-count ratio of each row.

    Args:
      record: of the run.
      rows: row to its measurements.
      path: of the PNG.
    """
    # Without pyplot: no display is needed, and no state is global.
    figure = Figure(figsize=(7.5, 0.62 * len(rows) + 1.3), layout="constrained")
    axes = figure.subplots()
    for index, (key, name, color) in enumerate(_BARS):
        places = [place + 0.27 * (index - 1) for place in range(len(rows))]
        values = [measured[key] for measured in rows.values()]
        drawn = axes.barh(places, values, height=0.25, color=color, label=name)
        axes.bar_label(drawn, fmt="%.2f", padding=3, fontsize=7)
    axes.set_yticks(range(len(rows)), [label(row).replace(" (", "\n(") for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("cost of a training step relative to the plain step (labels only)")
    axes.margins(x=0.09)
    axes.set_title(
        f"{record['student']} <- {record['teacher']}, batch {record['batch']}, {record['precision']}, "
        f"{record['device']}",
        fontsize=9,
    )
    axes.legend(loc="upper right", frameon=False)  # next to the plain step, whose bars are short
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=110)
