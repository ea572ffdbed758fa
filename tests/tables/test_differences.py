"""Differences between methods over seeds."""

import pytest

from at_jax.tables import differences


def row(name, method, errors):
    """A row of table.json: errors by seed."""
    seeds = [{"seed": s, "test_error": e, "best_test_error": e - 1} for s, e in errors.items()]
    return {"name": name, "method": method, "seeds": seeds}


def test_paired_uses_common_seeds_only():
    # Differences of seeds 1 and 2: -2 and -4; their mean is -3, their standard deviation sqrt(2).
    found = differences.paired({1: 8.0, 2: 6.0, 9: 0.0}, {0: 50.0, 1: 10.0, 2: 10.0})
    # The 97.5 % quantile of Student's t with one degree of freedom is 12.706.
    assert (found.mean, found.pairs) == (-3.0, 2)
    assert found.margin == pytest.approx(12.7062, rel=1e-4)  # 12.706 * sqrt(2) / sqrt(2)
    assert differences.paired({1: 8.0}, {0: 50.0}) is None


def test_from_labels_only_compares_rows_with_that_of_the_pair():
    rows = [
        row("none", "none", {0: 20.0, 1: 22.0}),
        row("at", "at", {0: 10.0, 1: 12.0}),
        row("kd", "kd", {0: 15.0}),
        row("unfinished", "kd", {}),
    ]
    last = differences.from_labels_only(rows, differences.LAST)
    assert last["none"] is None and last["unfinished"] is None
    assert str(last["at"]) == "-10.00 ± 0.00" and str(last["kd"]) == "-5.00"
    rows[1]["seeds"][0]["best_test_error"] = None
    assert differences.from_labels_only(rows, differences.BEST)["at"].pairs == 1
    assert differences.from_labels_only(rows[1:], differences.LAST)["at"] is None
