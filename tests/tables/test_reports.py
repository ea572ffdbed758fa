"""table.json, table.md and the figures of runs whose files are written by hand."""

import dataclasses
import json
import pathlib
import re
import sys

import pytest

from at_jax import terms
from at_jax.figures import style
from at_jax.tables import command as program
from at_jax.tables import markdown, plan, plots, registry
from at_jax.tables.paper import PaperResult
from at_jax.tables.rows import Row

STUDENT, TEACHER = "wrn_10_0.25", "wrn_10_0.5"


@pytest.fixture
def numbers(fake_training, tmp_path, monkeypatch, read_table):
    """table.json of three seeds: labels only 20, 21, 22 percent; attention transfer 10, 11, 12."""
    with monkeypatch.context() as patch:
        patch.setattr(plots, "draw", lambda *_: [])
        assert program.main(["tiny", "--out", str(tmp_path), "--seeds", "3", "--together"]) == 0
    return read_table(tmp_path)


def test_summarize_of_finished_runs(numbers):
    none, at = numbers["rows"]
    assert [seed["seed"] for seed in none["seeds"]] == [0, 1, 2]
    assert [none[key] for key in ("lowest", "median", "mean", "highest")] == [20, 21, 21, 22]
    assert [at[key] for key in ("lowest", "median", "mean", "highest")] == [10, 11, 11, 12]
    assert (none["paper"], at["paper"]) == ({"error": 8.77, "status": "verified"}, None)
    seed = at["seeds"][0]
    assert seed["errors"] == [90.0, 10.0]
    assert {"commit", "finished", "versions", "device", "wall_seconds"} <= seed.keys()
    assert numbers["teachers"][0]["run"]["seed"] == plan.TEACHER_SEED
    assert (numbers["data"], numbers["measured_on"], numbers["epochs"]) == ("digits", "test", 2)


def test_render_of_finished_runs(numbers):
    text = markdown.render(numbers)
    assert (
        "| `none` (labels only) | 21.00 | 21.00 | 20.00 to 22.00 | 3 of 3 |  |  | 8.77 | verified |"
        in text
    )
    # 10 points less with every seed.
    assert "| `at` | 11.00 | 11.00 | 10.00 to 12.00 | 3 of 3 | -10.00 ± 0.00 |" in text
    assert "| teacher, wrn_10_0.5 | 30.00 | 30.00 |  | 1 run |  |  |  |  |" in text
    # 7 runs of 10 seconds each, two in a program where possible.
    assert "Measured 2026-01-02; total training time 0:01:10 (h:mm:ss)." in text
    assert "- 7 runs on 1 x cpu, jax 0.0, commit abc" in text
    for run in (numbers["teachers"][0]["run"], numbers["rows"][0]["seeds"][0]):
        run["wall_seconds"] = 50 * 3600  # more than a day
    hours = re.search(r"training time (\d+):(\d\d):(\d\d) ", markdown.render(numbers))
    assert int(hours[1]) > 50
    assert "Up to 2 students were trained in one program." in text
    assert "Open:" not in text
    assert "\nCommand: `at-jax tables tiny --seeds 3 --together 4 --out OUT`\n" in text


COMMITTED = sorted((pathlib.Path(__file__).parents[2] / "results").rglob("table.json"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_committed_report_is_that_of_its_table(path):
    assert path.with_suffix(".md").read_text() == markdown.render(json.loads(path.read_text()))


def test_render_of_a_constant_student_says_so(numbers):
    numbers["rows"][1]["seeds"][0]["constant_student"] = True
    text = markdown.render(numbers)
    assert "| 10.00 to 12.00 | 3 of 3, 1 constant |" in text and "A constant student gives" in text
    assert "A constant student" not in markdown.render(numbers | {"rows": numbers["rows"][:1]})


def test_table_is_written_before_the_first_run(fake_training, tmp_path, monkeypatch):
    fake_training.failures["none"] = KeyboardInterrupt()
    row = Row(STUDENT, TEACHER, "at", {"at.p": 4.0}, "sum4", label="at, F_sum^4",
              paper=PaperResult(8.09, "unverified"))  # fmt: skip
    table = dataclasses.replace(registry.TABLES["tiny"](), rows=(row,), paper_epochs=200)
    monkeypatch.setitem(registry.TABLES, "tiny", lambda: table)
    arguments = ["tiny", "--label", "DIGITS", "--seeds", "1", "--out", str(tmp_path)]
    assert program.main(arguments) == 130
    text = (tmp_path / "table.md").read_text()
    assert "Test error in percent on DIGITS, after 2 epochs (learning-rate drops" in text
    assert "are from the paper, after 200 epochs; all other numbers" in text
    assert "| `at, F_sum^4` (at.p=4.0) |  |  |  | 0 of 1 |  |  | 8.09 | unverified |" in text
    assert "No run is finished yet." in text


def test_draw_writes_two_figures(numbers, tmp_path):
    paths = plots.draw(numbers, tmp_path)
    assert [path.name for path in paths] == ["errors.png", "curves.png"]
    for path in paths:
        assert 3_000 < path.stat().st_size < 300_000


@pytest.mark.parametrize("kept", [1, 0])
def test_lost_lines_of_the_last_epochs_leave_a_gap(fake_training, tmp_path, read_table, kept):
    assert program.main(["tiny", "--out", str(tmp_path), "--seeds", "2"]) == 0
    lines = tmp_path / "runs" / f"{STUDENT}-none" / "seed1" / "metrics.jsonl"
    lines.write_text("".join(lines.read_text().splitlines(keepends=True)[:kept]))
    (tmp_path / "table.json").unlink()
    assert program.main(["tiny", "--out", str(tmp_path), "--seeds", "2"]) == 0
    errors = [seed["errors"] for seed in read_table(tmp_path)["rows"][0]["seeds"]]
    assert errors == [[90.0, 20.0], [90.0, None] if kept else [None, None]]


def test_draw_makes_results_readable_on_the_axis_of_errors(numbers, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(style, "save", lambda figure, path: drawn.append(figure))
    plots.draw(numbers, tmp_path)
    panel = drawn[1].axes[0]
    assert panel.get_yscale() == "log"  # 90 to 10 percent
    assert panel.get_yticklabels()[0].get_text() == "10"


def test_draw_writes_long_names_of_networks_in_the_plot(numbers, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(style, "save", lambda figure, path: drawn.append(figure))
    student, teacher = "my_package.networks:SmallStudent", "my_package.networks:LargeTeacher"
    for row in numbers["rows"]:
        row["pair"] = f"{student} <- {teacher}"
        for seed in row["seeds"]:
            seed["errors"] = seed["errors"][:1]
    plots.draw(numbers | {"epochs": 1}, tmp_path)
    errors, curves = drawn
    assert [text.get_text() for text in errors.axes[0].texts] == [f"{student}\n<- {teacher}"]
    for figure in drawn:
        figure.canvas.draw()
        width = figure.get_size_inches()[0] * figure.dpi
        assert errors.axes[0].get_window_extent().width > 0.4 * width
    # One epoch: its seeds have a band.
    panel = curves.axes[0]
    assert panel.get_title(loc="left") == f"{student}\n<- {teacher}"
    assert [tick for tick in panel.get_xticks() if 0.5 < tick < 1.5] == [1]
    assert any(type(c).__name__ == "LineCollection" for c in panel.collections)


@pytest.mark.parametrize(
    ("changes", "title", "label"),
    [
        ({}, "paper", "percent, median of 5"),
        (
            {"source": {"name": "a page", "label": "Others"}, "paper_epochs": 240},
            "Others",
            "percent\nafter 240 epochs\n(hollow: quoted)",
        ),
    ],
)
def test_draw_names_the_source_of_published_results(
    numbers, tmp_path, monkeypatch, changes, title, label
):
    drawn = []
    monkeypatch.setattr(style, "save", lambda figure, path: drawn.append(figure))
    numbers["rows"][0]["paper"]["status"] = "quoted" if changes else "verified"
    plots.draw(numbers | changes, tmp_path)
    published = drawn[0].axes[-1]
    assert published.get_title(loc="left") == title
    assert published.get_xlabel() == label
    said = "are from a page, after 240 epochs;" if changes else "are from the paper;"
    assert said in markdown.render(numbers | changes)


def test_draw_gives_variants_of_a_method_colors_that_no_other_row_has(
    numbers, tmp_path, monkeypatch
):
    drawn = {}
    monkeypatch.setattr(style, "save", lambda figure, path: drawn.update({path.name: figure}))
    none, at = numbers["rows"]
    variants = [at | {"name": f"at-{label}", "label": f"at-{label}"} for label in "abc"]
    plots.draw(numbers | {"rows": [none, at, *variants]}, tmp_path)
    colors = [line.get_color() for line in drawn["curves.png"].axes[0].get_lines()]
    assert colors[:2] == [terms.color("none"), terms.color("at")]
    assert len(set(colors)) == 5


def test_draw_of_rows_with_few_labels_adds_their_errors_over_the_labels(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(style, "save", lambda figure, path: drawn.update({path.name: figure}))
    stored = pathlib.Path(__file__).parents[2] / "results" / "cifar10_few_labels" / "table.json"
    plots.draw(json.loads(stored.read_text()), tmp_path)
    panel = drawn["labels.png"].axes[0]
    lines = {line.get_label(): line for line in panel.get_lines()}
    assert list(lines["labels only"].get_xdata()) == [500, 1000, 4000]
    # Means of the table, of three seeds: (54.95 + 52.69 + 54.70) / 3 at 500 labels.
    means = pytest.approx([54.11, 44.22, 27.28], abs=0.006)
    assert list(lines["labels only"].get_ydata()) == means
    assert lines["teacher"].get_ydata()[0] == pytest.approx(14.08)
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["500", "1,000", "4,000"]


def test_draw_of_the_first_version_s_table(tmp_path):
    stored = pathlib.Path(__file__).parents[2] / "results" / "cifar10_activation" / "table.json"
    assert len(plots.draw(json.loads(stored.read_text()), tmp_path)) == 2


def test_draw_without_matplotlib_logs_and_returns_nothing(numbers, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert plots.draw(numbers, tmp_path) == []
    assert "No figures: drawing needs matplotlib" in capsys.readouterr().out
