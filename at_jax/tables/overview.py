"""The results of a table, for the terminal."""

from collections.abc import Mapping
from typing import Any

from at_jax.tables import differences
from at_jax.tables.rows import by_pair

__all__ = ["overview"]


def overview(summary: Mapping[str, Any]) -> str:
    """Format mean errors, and differences from labels only with their 95 % confidence intervals.

    Args:
      summary: result of :func:`at_jax.tables.summary.summarize`, of a table.

    Returns:
      Lines for each pair of networks with a finished run; empty if there are none.

    >>> def row(method, *errors):
    ...     seeds = [{"seed": seed, "test_error": error} for seed, error in enumerate(errors)]
    ...     mean = sum(errors) / len(errors)
    ...     return {"name": method, "label": method, "method": method, "pair": "s <- t", "seeds": seeds,
    ...             "mean": mean}
    >>> print(overview({"measured_on": "test", "rows": [row("none", 5, 7, 9), row("at", 4, 5, 6)]}))
    s <- t   test error   seeds   difference from labels only
      none       7.00 %       3
      at         5.00 %       3   -2.00 ± 2.48
    """
    lines = []
    for pair, rows in by_pair(summary["rows"]).items():
        compared = differences.from_labels_only(rows, differences.LAST)
        finished = [row for row in rows if row["seeds"]]
        if not finished:
            continue
        width = max(len(pair), *(len(row["label"]) + 2 for row in finished))
        title = f"{summary['measured_on']} error"
        lines.append(f"{pair:<{width}}   {title}   seeds   difference from labels only")
        for row in finished:
            error, seeds = f"{row['mean']:.2f} %", len(row["seeds"])
            difference = differences.shown(compared[row["name"]], seeds)
            label = f"  {row['label']}"
            lines.append(
                f"{label:<{width}}   {error:>{len(title)}}   {seeds:>5}   {difference}".rstrip()
            )
    return "\n".join(lines)
