"""Curves of runs."""

import pytest

from at_jax.figures import canvas, curves


def run(method="none", name="a", seed=0, epochs=3, teacher=None, **more):
    lines = [
        {"epoch": e, "loss": 1.0 / e, "loss/cross_entropy": 1.0 / e, "test_error": 60.0 / e,
         "train_error": 50.0 / e, **{key: value / e for key, value in more.items()}}
        for e in range(1, epochs + 1)
    ]  # fmt: skip
    config = {"method": method, "student": "wrn_10_1", "seed": seed}
    return curves.Run(name, config, lines, teacher)


def drawn(*runs):
    with canvas.style():
        figure = curves.draw(runs)
        figure.draw_without_rendering()
    return figure, [axes for axes in figure.axes if axes.get_visible()]


def test_a_panel_for_each_term_and_a_line_for_each_run():
    figure, axes = drawn(run(), run("at", teacher=7.25, **{"loss/attention": 0.1}))
    assert [a.get_title("left") for a in axes] == [
        "test error, percent", "training error, percent", "cross entropy, unweighted",
        "attention, unweighted",
    ]  # fmt: skip
    error, _, cross_entropy, attention = axes
    alone, transfer, teacher = error.lines
    assert alone.get_xdata().tolist() == [1, 2, 3]
    assert transfer.get_ydata().tolist() == [60, 30, 20]
    assert (alone.get_color(), transfer.get_color()) == (canvas.colour("none"), canvas.colour("at"))
    assert teacher.get_ydata() == [7.25, 7.25]
    assert len(cross_entropy.lines) == 2
    assert attention.lines[0].get_xdata().tolist() == []  # the student alone has no such term
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["student alone", "attention transfer", "teacher, 7.25 %"]


def test_runs_of_one_method_are_told_apart():
    figure, axes = drawn(run("at", seed=0), run("at", seed=1), run("none"))
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["attention transfer, seed 0", "attention transfer, seed 1",
                      "student alone, seed 0"]  # fmt: skip
    first, second, _ = axes[0].lines
    assert first.get_color() == second.get_color()
    assert first.get_linestyle() != second.get_linestyle()
    figure, _ = drawn(run("at", "one"), run("at", "two"))
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["attention transfer, one", "attention transfer, two"]


def test_one_epoch_and_one_term_are_drawn_too():
    _, axes = drawn(run(epochs=1))
    assert axes[0].lines[0].get_marker() == "o"
    assert axes[2].get_title("left") == "loss, terms weighted"


def test_wide_ranges_are_logarithmic_and_labelled_without_formulas():
    _, axes = drawn(run(epochs=50, **{"loss/attention": 0.5}))
    panel = axes[-1]
    assert panel.get_yscale() == "log" and axes[0].get_yscale() == "linear"
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert "0.1" in labels and not any("$" in label for label in labels)


def test_titles_and_labels_are_not_cut():
    figure, axes = drawn(run("at+kd", **{"loss/distillation": 0.1, "loss/attention": 1e-5}))
    for panel in axes:
        for text in (panel.title, panel._left_title, panel.xaxis.label, *panel.get_yticklabels()):
            box = text.get_window_extent()
            if text.get_text():
                assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, text.get_text()


def test_a_run_is_read_while_it_goes(finished, tmp_path):
    workdir, result, _ = finished
    found = curves.read(workdir)
    assert found.teacher_error == result["teacher_test_error"] and len(found.lines) == 2
    (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
    with pytest.raises(ValueError, match="has no finished epoch yet"):
        curves.read(tmp_path)
    (tmp_path / "metrics.jsonl").write_text((workdir / "metrics.jsonl").read_text())
    assert curves.read(tmp_path).teacher_error is None
