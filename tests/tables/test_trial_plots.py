"""The figure of a search, drawn from committed searches."""

import json
import pathlib

import pytest

from at_jax.figures import style
from at_jax.tables import plots

RESULTS = pathlib.Path(__file__).parents[2] / "results"


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """Draws a search, and returns its panels by title."""
    drawn = {}
    monkeypatch.setattr(style, "save", lambda figure, path: drawn.update({path.name: figure}))

    def panels(summary):
        drawn.clear()
        assert plots.draw(summary, tmp_path) == [tmp_path / "search.png"]
        return {panel.get_title(loc="left"): panel for panel in drawn["search.png"].axes}

    return panels


@pytest.fixture
def digits():
    return json.loads((RESULTS / "digits_searched" / "search" / "table.json").read_text())


def _ticks(panel):
    return [label.get_text() for label in panel.get_xticklabels()]


def _curves(panel):
    """Errors of each line but that of labels only, by label."""
    return {
        line.get_label(): [round(y, 4) for y in line.get_ydata()]
        for line in panel.get_lines()
        if line.get_color() != "#777777"
    }


def test_search_has_a_panel_for_each_label_with_values_by_size(draw, digits):
    panels = draw(digits)
    assert set(digits["search"]["space"]) == panels.keys() - {""}  # and empty ones
    assert _ticks(panels["at"]) == ["5", "20", "50", "200", "500", "2000"]
    assert list(_curves(panels["at"]).values()) == [[6.6, 6.6667, 5.9333, 6.1333, 8.7333, 13.6]]
    # Labels only, at its best learning rate.
    (dashed,) = (line for line in panels["at"].get_lines() if line.get_color() == "#777777")
    assert dashed.get_ydata()[0] == pytest.approx(6.6)


def test_search_of_two_keys_has_a_line_for_each_value_of_the_other(draw, digits):
    panels = draw(digits)
    assert panels["at+kd"].get_xlabel() == "at.beta"
    assert _curves(panels["at+kd"]) == {
        "kd.temperature=4": [3.5333, 3.8, 3.3333],
        "kd.temperature=8": [3.4667, 2.6, 3.0667],
    }
    assert _ticks(panels["gradient_at"]) == ["4", "8", "16"]


def test_search_marks_what_was_chosen_and_what_diverged(draw, digits):
    panels = draw(digits)
    circles = [c for c in panels["at"].collections if not len(c.get_facecolor())]
    assert [tuple(circle.get_offsets()[0]) for circle in circles] == [
        (2, pytest.approx(5.9333, abs=1e-4))
    ]
    # f_actt diverged at 3, the last value: a cross, and no point on the line.
    crosses = [c for c in panels["f_actt"].collections if c.get_offsets()[:, 1].tolist() == [1.0]]
    assert [cross.get_offsets()[0, 0] for cross in crosses] == [5]
    assert len(_curves(panels["f_actt"])["_child1"]) == 5


def test_search_of_two_keys_has_a_marker_for_each_line_and_shows_its_seeds_apart(draw, digits):
    panel = draw(digits)["at+kd"]
    four, eight = (handle.get_marker() for handle in panel.get_legend().legend_handles)
    assert four != eight
    places = [round(float(c.get_offsets()[0, 0]), 2) for c in panel.collections]
    assert {-0.06, 0.06} <= {*places}


def test_trial_with_a_seed_that_diverged_has_no_mean(draw, digits):
    for row in digits["rows"]:
        if row["name"].endswith("at.beta=5") and row["label"] == "at":
            row |= {"diverged": [1], "mean": 1.0}
        if row["label"] == "none":
            row |= {"diverged": [1]}
    panel = draw(digits)["at"]
    assert list(_curves(panel).values()) == [[6.6667, 5.9333, 6.1333, 8.7333, 13.6]]
    assert not [line for line in panel.get_lines() if line.get_color() == "#777777"]


def test_search_that_is_not_finished_draws_what_there_is(draw, digits):
    for row in digits["rows"]:
        if row["label"] == "at":
            row |= {"seeds": [], "mean": None, "missing": [0]}
    del digits["search"]["chosen"]["at"]
    assert list(_curves(draw(digits)["at"]).values()) == [[]]


def test_search_of_texts_and_of_several_pairs(draw):
    path = RESULTS / "cifar10_gradient_searched" / "schedule" / "search" / "table.json"
    summary = json.loads(path.read_text())
    (panel,) = draw(summary).values()
    assert _ticks(panel) == ["0.01", "0.02", "0.04"]
    assert set(_curves(panel)) == {
        f"optimizer.schedule={each}" for each in ("steps", "cosine", "one_cycle")
    }
    others = [row | {"pair": "a <- b"} for row in summary["rows"]]
    panels = draw(summary | {"rows": [*summary["rows"], *others]})
    assert set(panels) == {"none\nnin_thin <- nin_wide", "none\na <- b"}
