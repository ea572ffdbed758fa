"""Differences between methods over seeds, with their confidence intervals."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scipy import special

from at_jax.training.console import counted

__all__ = ["BEST", "LAST", "Difference", "from_labels_only", "paired", "shown"]

# Entries of a seed in table.json.
LAST, BEST = "test_error", "best_test_error"
_LEVEL = 0.95


class Difference(NamedTuple):
    """Mean difference over pairs, in percentage points.

    Attributes:
      mean: of the differences.
      margin: half the width of the 95 % confidence interval; None for fewer than two pairs.
      pairs: number of pairs.
    """

    mean: float
    margin: float | None
    pairs: int

    def __str__(self) -> str:
        margin = "" if self.margin is None else f" ± {self.margin:.2f}"
        return f"{self.mean:+.2f}{margin}"


def shown(difference: Difference | None, seeds: int) -> str:
    """Format a difference for a table, with the number of pairs if some of the seeds have none.

    >>> shown(Difference(-2.0, 2.484, 3), 5), shown(None, 5)
    ('-2.00 ± 2.48 (3 pairs)', '')
    """
    if difference is None:
        return ""
    pairs = f" ({counted(difference.pairs, 'pair')})" if difference.pairs < seeds else ""
    return f"{difference}{pairs}"


def paired(errors: Mapping[int, float], reference: Mapping[int, float]) -> Difference | None:
    """Compare errors with those of the same seeds.

    The interval is that of Student's t-distribution, with one degree of freedom less than pairs: it
    assumes that differences are normally distributed over seeds.

    Args:
      errors: by seed, in percent.
      reference: by seed, in percent.

    Returns:
      The difference; None without a common seed.

    >>> paired({0: 4.0, 1: 5.0, 2: 6.0}, {0: 5.0, 1: 7.0, 2: 9.0})  # doctest: +ELLIPSIS
    Difference(mean=-2.0, margin=2.484..., pairs=3)
    >>> str(paired({0: 4.0, 1: 5.0, 2: 6.0}, {0: 5.0, 1: 7.0, 2: 9.0}))
    '-2.00 ± 2.48'
    >>> paired({0: 4.0}, {0: 5.0})
    Difference(mean=-1.0, margin=None, pairs=1)
    """
    differences = [errors[seed] - reference[seed] for seed in sorted(errors.keys() & reference)]
    if not differences:
        return None
    count, mean = len(differences), statistics.fmean(differences)
    if count == 1:
        return Difference(mean, None, count)
    quantile = float(special.stdtrit(count - 1, (1 + _LEVEL) / 2))
    return Difference(mean, quantile * statistics.stdev(differences) / math.sqrt(count), count)


def from_labels_only(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, Difference | None]:
    """Differences of the rows of one pair from the student that was trained on labels only.

    Args:
      rows: of table.json, of one pair of networks.
      key: LAST or BEST.

    Returns:
      Name of a row to its difference; None for labels only, and without a common seed.
    """
    by_seed = {
        row["name"]: {seed["seed"]: seed[key] for seed in row["seeds"] if seed.get(key) is not None}
        for row in rows
    }
    alone = next((by_seed[row["name"]] for row in rows if row["method"] == "none"), {})
    return {
        row["name"]: None if row["method"] == "none" else paired(by_seed[row["name"]], alone)
        for row in rows
    }
