"""Results of a search: the values that it chose."""

import pathlib
import shlex
import statistics
from collections.abc import Mapping
from typing import Any

from at_jax.errors import UserError
from at_jax.tables import changes, record
from at_jax.tables.search import Space

__all__ = ["chosen", "options_of"]


def chosen(summary: Mapping[str, Any], space: Space) -> dict[str, dict[str, Any]]:
    """Choose the values of each label: those of the lowest mean error over its rows and seeds.

    Args:
      summary: of the search.
      space: values that were tried.

    Returns:
      Label to ``rows`` (names of the best trials), ``values`` (key to text), ``error`` (percent), and
      ``options`` of the table that set the values. A label whose trials are not all finished is left out.
    """
    result = {}
    for label, keys in space.items():
        rows = {row["name"]: row for row in summary["rows"] if row["label"] == label}
        if not rows or any(row["missing"] or row["failed"] for row in rows.values()):
            continue
        trials: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
        for row in rows.values():
            texts = tuple(changes.text_of(row["changes"][key]) for key in keys)
            trials.setdefault(texts, []).append(row)
        means = {
            texts: statistics.fmean(seed["test_error"] for row in members for seed in row["seeds"])
            for texts, members in trials.items()
            if not any(row["diverged"] for row in members)
        }
        if not means:
            continue
        best = min(means, key=lambda texts: means[texts])  # of equal ones the first
        values = dict(zip(keys, best, strict=True))
        result[label] = {
            "rows": [row["name"] for row in trials[best]],
            "values": values,
            "error": means[best],
            "options": [
                shlex.join(["--set", f"{label}:{key}={text}"]) for key, text in values.items()
            ],
        }
    return result


def options_of(path: pathlib.Path) -> tuple[changes.Change, ...]:
    """Read the changes that a search chose.

    Args:
      path: of its table.json.

    Raises:
      UserError: if there is none, it is damaged, not finished, or all values of a label diverged.
    """
    found = record.read(path)
    if found is None:
        raise UserError(f"--searched: there is no search at {path}: run one with --search first")
    if found.search is None:
        raise UserError(
            f"--searched: {path} must be the table of a search, got a table: choose another --out"
        )
    space, best = found.search.space, found.search.chosen
    if unfinished := [label for label in space if label in found.unfinished]:
        raise UserError(
            f"--searched: trials of {', '.join(unfinished)} are not finished: run the command in "
            f"{path.with_name('table.md')}"
        )
    if unchosen := [label for label in space if label not in best]:
        raise UserError(
            f"--searched: all values of {', '.join(unchosen)} diverged: add others with --search"
        )
    return tuple(
        changes.parse(f"{label}:{key}={text}")
        for label in space
        for key, text in best[label]["values"].items()
    )
