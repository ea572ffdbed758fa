"""Comparison runs in subfolders of a run: which are found, and where they are shown."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import small_run
import storage

from at_jax import loop, paths, terms
from at_jax.figures import comparisons, curves, network_figures, networks, run_figures, style
from at_jax.training.config import default_config


def write_run(workdir, method, errors, *, is_finished=True, **config):
    """Files of a run as the trainer leaves them, without its checkpoints."""
    workdir.mkdir(parents=True)
    stored = default_config().to_dict() | {"method": method, "student": "wrn_10_1"} | config
    (workdir / "config.json").write_text(json.dumps(stored))
    lines = [
        {"epoch": epoch, "step": epoch, "test_error": error, "train_error": error, "loss": 1.0}
        for epoch, error in enumerate(errors, 1)
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if is_finished:
        teacher = None if method == "none" else 0.56
        result = {"student": "wrn_10_1", "teacher_test_error": teacher, "evaluated_on": "test"}
        (workdir / "result.json").write_text(json.dumps(result))


@pytest.fixture
def tree(tmp_path):
    """A run with two finished comparison runs, and folders that are none."""
    root = tmp_path / "run"
    write_run(root, "at+kd", [50.0, 3.0, 4.0])
    write_run(root / "at", "at", [60.0, 6.0, 5.0])
    write_run(root / "none", "none", [70.0, 9.0, 8.0])
    write_run(root / "teacher", "none", [40.0, 0.56], student="wrn_16_2")
    write_run(root / "gradient_at", "gradient_at", [65.0], is_finished=False)
    write_run(root / "newer" / "deeper", "at", [1.0])
    (root / "broken").mkdir()
    (root / "broken" / "config.json").write_text("{")
    (root / "broken" / "result.json").write_text("{}")
    return root


def test_find_returns_finished_runs_of_direct_subfolders_except_the_teacher(tree):
    assert [folder.name for folder in comparisons.find(tree)] == ["at", "broken", "none"]
    assert len(comparisons.results(tree)) == 3
    assert comparisons.find(tree / "at") == []


def test_histories_are_in_order_of_methods_and_broken_runs_are_logged(tree, monkeypatch):
    logged = []
    monkeypatch.setattr(comparisons, "log", logged.append)
    found = comparisons.histories(tree)
    assert [history.method for history in found] == ["none", "at+kd", "at"]
    (line,) = logged
    assert "broken" in line and line.startswith("not in the figures: ")
    # In the figure: a name, a color and the errors of each, and the teacher's error as a line.
    with style.context():
        figure = curves.draw(found)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["labels only", "attention transfer + distillation", "attention transfer",
                      "teacher, 0.56 %"]  # fmt: skip
    *lines, teacher = figure.axes[0].lines
    assert [line.get_color() for line in lines] == [
        terms.color(method) for method in ("none", "at+kd", "at")
    ]
    assert [line.get_ydata().tolist()[-1] for line in lines] == [8.0, 4.0, 5.0]
    assert teacher.get_ydata() == [0.56, 0.56]


def test_the_table_has_last_and_best_error_of_each_method(tree, monkeypatch):
    monkeypatch.setattr(comparisons, "log", lambda _: None)
    rows = run_figures.comparison_rows(comparisons.histories(tree), tree)
    assert rows == [
        ("labels only", "8.00 %", "8.00 %"),
        ("attention transfer + distillation (this run)", "4.00 %", "3.00 %"),
        ("attention transfer", "5.00 %", "5.00 %"),
        ("teacher", "0.56 %", ""),
    ]


def test_the_table_names_this_run_in_cloud_storage_too(tree, in_memory, monkeypatch):
    monkeypatch.setattr(comparisons, "log", lambda _: None)
    workdir = paths.parse("gs://bucket/run")
    storage.upload(tree, workdir)
    rows = run_figures.comparison_rows(comparisons.histories(workdir), workdir)
    assert rows[1][0] == "attention transfer + distillation (this run)"


@pytest.fixture
def with_none(finished, tmp_path):
    """A copy of a finished run, and of it again as if it had been trained without its teacher."""
    root = tmp_path / "run"
    shutil.copytree(finished[0], root)
    shutil.copytree(finished[0], root / "none", ignore=shutil.ignore_patterns("teacher"))
    path = root / "none" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"method": "none"}))
    return root


def test_a_run_with_a_comparison_shows_the_student_alone(with_none, finished, monkeypatch):
    given, called, logged = [], [], []
    monkeypatch.setattr(run_figures, "log", logged.append)
    original, draw = network_figures.attention_grid, run_figures.draw

    def record(shown, *args, **kwargs):
        given.append({network.title: network for network in shown})
        return original(shown, *args, **kwargs)

    monkeypatch.setattr(network_figures, "attention_grid", record)
    monkeypatch.setattr(run_figures, "draw", lambda *args: called.append(args) or draw(*args))
    result = loop.train_and_evaluate(small_run.config(runtime__figures=True), with_none)
    *others, shown = given  # the last one; the teacher's figures may exist
    assert list(shown) == [networks.WITH_TRANSFER, networks.ALONE, networks.TEACHER]
    text = (with_none / "report.html").read_text()
    assert not logged and "<h2>Comparison</h2>" in text
    assert f"<td>labels only</td><td>{result['test_error']:.2f} %</td>" in text
    # The same again draws nothing; another result of the comparison run draws again.
    assert draw(*called[-1]) and len(given) == len(others) + 1
    path = with_none / "none" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 1}))
    monkeypatch.setattr(run_figures, "_draw", lambda *_: given.append("drawn"))
    assert draw(*called[-1]) and given[len(others) + 1 :] == ["drawn"]


def test_baseline_is_the_network_of_the_run_in_none(with_none):
    student = networks.of_run(with_none, title=networks.STUDENT)
    found = comparisons.baseline(with_none, student)
    assert (found.title, found.model_name) == ("student alone", "wrn_10_0.25")
    pixels = np.zeros((1, *student.image_shape), np.uint8)
    np.testing.assert_array_equal(found.attention(pixels)[0], student.attention(pixels)[0])


def test_a_run_in_none_that_is_not_the_student_alone_is_no_baseline(with_none, monkeypatch):
    student = networks.of_run(with_none, title=networks.STUDENT)
    other = dataclasses.replace(student, description=student.description | {"name": "wrn_16_1"})
    assert comparisons.baseline(with_none, other) is None
    path = with_none / "none" / "config.json"
    kept = path.read_text()
    path.write_text(json.dumps(json.loads(kept) | {"method": "at"}))
    assert comparisons.baseline(with_none, student) is None
    path.write_text(kept)
    shutil.rmtree(with_none / "none" / "checkpoints")
    logged = []
    monkeypatch.setattr(comparisons, "log", logged.append)
    assert comparisons.baseline(with_none, student) is None
    assert len(logged) == 1 and "holds no checkpoints" in logged[0]
    (with_none / "none" / "result.json").unlink()
    assert comparisons.baseline(with_none, student) is None and len(logged) == 1
