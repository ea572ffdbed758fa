"""Results of a search: the values that it chose, and those that diverged."""

import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

from at_jax.errors import UserError
from at_jax.tables import changes
from at_jax.tables.search import Space
from at_jax.training import json_files
from at_jax.training.run_log import NonFinite

__all__ = ["chosen", "complete", "diverged", "options_of"]


def diverged(failure: Mapping[str, Any] | None) -> bool:
    """Whether a trial failed because of its values: they are tried, and are not chosen."""
    return bool(failure and failure["reason"].startswith(NonFinite.__name__))


def complete(
    summary: Mapping[str, Any], space: Space, before: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Add what a search found to its summary.

    Args:
      summary: see :func:`at_jax.tables.summary.summarize`.
      space: values that were tried.
      before: names of runs to entries of trials that diverged, in an earlier table.json.

    Returns:
      The summary with ``search``, see :func:`chosen`, and in each row ``diverged``, a list of seeds and
      reasons that are no longer ``failed`` or ``missing``.
    """
    rows = []
    for row in summary["rows"]:
        # The rest of the reason is advice, with the folder of the run.
        found = [
            {**failure, "reason": failure["reason"].partition(";")[0]}
            for failure in row["failed"]
            if diverged(failure)
        ]
        names = {seed: f"{row['name']}/seed{seed}" for seed in row["missing"]}
        found += [dict(before[name]) for name in names.values() if name in before]
        seeds = {each["seed"] for each in found}
        kept = {
            "failed": [each for each in row["failed"] if each["seed"] not in seeds],
            "missing": [seed for seed in row["missing"] if seed not in seeds],
            "diverged": found,
        }
        rows.append({**row, **kept})
    result = {**summary, "rows": rows}
    return {**result, "search": {"space": space, "chosen": chosen(result, space)}}


def chosen(summary: Mapping[str, Any], space: Space) -> dict[str, dict[str, Any]]:
    """Choose the values of each label: those of the lowest mean error over its rows and seeds.

    Args:
      summary: of the search, with ``diverged``.
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
            texts: statistics.fmean(seed["test_error"] for row in of for seed in row["seeds"])
            for texts, of in trials.items()
            if not any(row["diverged"] for row in of)
        }
        if not means:
            continue
        best = min(means, key=lambda texts: means[texts])  # of equal ones the first
        values = dict(zip(keys, best, strict=True))
        result[label] = {
            "rows": [row["name"] for row in trials[best]],
            "values": values,
            "error": means[best],
            "options": [f"--set {label}:{key}={text}" for key, text in values.items()],
        }
    return result


def options_of(path: pathlib.Path) -> list[str]:
    """Read the changes that a search chose, ``ROWS:KEY=VALUE``.

    Args:
      path: of its table.json.

    Raises:
      UserError: if there is none, it is damaged, or not finished.
    """
    try:
        found = json_files.read(path)["search"]
        space, best = found["space"], found["chosen"]
        result = [
            f"{label}:{key}={text}"
            for label in space
            for key, text in best.get(label, {"values": {}})["values"].items()
        ]
    except FileNotFoundError:
        raise UserError(
            f"--searched: there is no search at {path}: run one with --search first"
        ) from None
    except (json_files.Damaged, KeyError, TypeError, AttributeError) as damaged:
        raise UserError(
            f"--searched: {path} is no search, or damaged ({damaged}): restore it, or delete it"
        ) from damaged
    if unfinished := [label for label in space if label not in best]:
        raise UserError(
            f"--searched: trials of {', '.join(unfinished)} are not finished: run the command in "
            f"{path.with_name('table.md')}"
        )
    return result
