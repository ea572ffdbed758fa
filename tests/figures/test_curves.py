"""Curves of runs."""

import dataclasses
import itertools
import pathlib

import pytest

from at_jax import terms
from at_jax.errors import UserError
from at_jax.figures import curves, style


def run(method="none", name="a", seed=0, epochs=3, teacher_error=None, losses=(), **more):
    lines = [
        {"epoch": e, "loss": 1.0 / e, "loss/cross_entropy": 1.0 / e, "test_error": 60.0 / e,
         "train_error": 50.0 / e, **{f"loss/{key}": value / e for key, value in dict(losses).items()}}
        for e in range(1, epochs + 1)
    ]  # fmt: skip
    return curves.History(name, method, more.pop("network", "wrn_10_1"), seed, lines, teacher_error,
                          **more)  # fmt: skip


def drawn(*runs):
    with style.context():
        figure = curves.draw(runs)
        figure.draw_without_rendering()
    return figure, [axes for axes in figure.axes if axes.get_visible()]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_draw_has_a_panel_for_each_term_and_a_line_for_each_run():
    figure, axes = drawn(run(), run("at", teacher_error=7.25, losses={"attention": 0.1}))
    assert [a.get_title("left") for a in axes] == [
        "test error (%)", "training error (%)", "cross entropy (unweighted)",
        "attention (unweighted)",
    ]  # fmt: skip
    error, _, cross_entropy, attention = axes
    alone, transfer, teacher = error.lines
    assert alone.get_xdata().tolist() == [1, 2, 3]
    assert transfer.get_ydata().tolist() == [60, 30, 20]
    assert (alone.get_color(), transfer.get_color()) == (terms.color("none"), terms.color("at"))
    assert teacher.get_ydata() == [7.25, 7.25]
    assert len(cross_entropy.lines) == 2
    assert attention.lines[0].get_xdata().tolist() == []  # labels only: there is no such term
    assert legend(figure) == ["labels only", "attention transfer", "teacher, 7.25 %"]


def test_runs_of_one_method_are_distinguished():
    figure, axes = drawn(run("at", seed=0), run("at", seed=1), run("none"))
    assert legend(figure) == ["attention transfer, seed 0", "attention transfer, seed 1",
                              "labels only"]  # fmt: skip
    first, second, _ = axes[0].lines
    assert first.get_color() == second.get_color()
    assert first.get_linestyle() != second.get_linestyle()
    figure, _ = drawn(run("at", "one"), run("at", "two"))
    assert legend(figure) == ["attention transfer, one", "attention transfer, two"]
    # Run folders of two tables have the same names.
    places = [pathlib.Path("/runs") / study / "wrn-at/seed0" for study in ("a", "b/c")]
    figure, _ = drawn(*(run("at", "seed0", workdir=place) for place in places), run("none"))
    assert legend(figure) == ["attention transfer, a", "attention transfer, b/c", "labels only"]
    inside = [run("at", "a", workdir=pathlib.Path(place)) for place in ("/x/a", "/x/a/a")]
    assert curves.run_names(inside) == ["attention transfer, a", "attention transfer, a/a"]


def test_eight_seeds_of_one_method_have_different_dashes():
    _, axes = drawn(*(run("at", seed=seed) for seed in range(8)))
    assert len({repr(line._unscaled_dash_pattern) for line in axes[0].lines}) == 8


def test_networks_are_named_where_they_differ_and_a_teacher_is_named_so():
    where = pathlib.Path("/runs/a")
    student = run("at", workdir=where, teacher=where / "teacher")
    teacher = run("none", workdir=where / "teacher", network="wrn_16_2")
    figure, axes = drawn(student, teacher, run("none"))
    assert legend(figure) == ["attention transfer, wrn_10_1", "teacher, wrn_16_2",
                              "labels only, wrn_10_1"]  # fmt: skip
    colors = [line.get_color() for line in axes[0].lines]
    assert colors == [terms.color("at"), style.TEACHER_COLOR, terms.color("none")]
    # Alone, it is a run like any other.
    assert legend(drawn(teacher)[0]) == ["labels only"]


def test_methods_of_user_defined_terms_have_names_and_colors():
    figure, _ = drawn(run("at+my_term"), run("my_term"))
    assert legend(figure) == ["attention transfer + my_term", "my_term"]


def test_different_methods_have_different_colors_whatever_their_order():
    # The registry has one color for all combinations of a term with others.
    assert terms.color("at+kd") == terms.color("at+gradient_at")
    runs = [run(m) for m in ("none", "at", "at+kd", "at+gradient_at", "one", "two", "kd+at")]
    _, axes = drawn(*runs)
    colors = [line.get_color() for line in axes[0].lines]
    assert len(set(colors[:6])) == 6 and colors[6] == colors[2]
    assert colors[:3] == [terms.color(m) for m in ("none", "at", "at+kd")]


def test_in_order_puts_labels_only_first_and_keeps_the_order_of_the_terms():
    runs = [run(m) for m in ("my_term", "gradient_at", "at+kd", "at", "none", "kd")]
    ordered = [each.method for each in curves.in_order(runs)]
    assert ordered == ["none", "kd", "at+kd", "at", "gradient_at", "my_term"]


def test_the_cross_entropy_is_the_first_loss_and_one_column_is_narrow():
    alphabetical = run("at", losses={"attention": 0.1})
    for line in alphabetical.lines:
        line.update({key: line.pop(key) for key in sorted(line)})
    with style.context():
        figure = curves.draw([alphabetical], columns=1)
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles[2:] == ["cross entropy (unweighted)", "attention (unweighted)"]
    assert len({axes.get_subplotspec().colspan.start for axes in figure.axes}) == 1
    assert figure.get_size_inches()[0] < 5


def test_one_epoch_and_one_term_are_drawn():
    _, axes = drawn(run(epochs=1))
    assert axes[0].lines[0].get_marker() == "o"
    low, high = axes[0].get_xlim()
    assert [tick for tick in axes[0].get_xticks() if low < tick < high] == [1]
    assert axes[2].get_title("left") == "loss (weighted sum)"


def test_validation_errors_are_named_so():
    _, axes = drawn(run(evaluated_on="validation"))
    assert axes[0].get_title("left") == "validation error (%)"
    _, axes = drawn(run(evaluated_on="validation"), run("at"))
    assert axes[0].get_title("left") == "test or validation error (%)"


def test_wide_ranges_are_logarithmic_and_labeled_without_formulas():
    _, axes = drawn(run(epochs=50, losses={"attention": 0.5}))
    assert [panel.get_yscale() for panel in axes] == ["log"] * 4
    labels = [label.get_text() for label in axes[-1].get_yticklabels()]
    assert labels == ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5"]
    _, axes = drawn(run(epochs=3))  # 60, 30, 20
    assert axes[0].get_yscale() == "linear"


def test_axis_over_many_decades_has_few_labels():
    lines = [{"epoch": epoch, "loss": 10.0 ** (5 * epoch)} for epoch in range(1, 7)]
    _, axes = drawn(dataclasses.replace(run(), lines=lines))
    labels = [text.get_text() for text in axes[2].get_yticklabels()]
    assert 4 <= len(labels) <= 9 and labels[0] == "100000"


def test_results_are_far_apart_on_the_axis_of_errors():
    # As in a run on digits: all begin at 90 %; the student ends at 4.23 %, its teacher has 0.56 %.
    student, alone = run("at", epochs=50, teacher_error=0.56), run(epochs=50)
    for each, last in ((student, 4.23), (alone, 6.76)):
        for line in each.lines:
            line["test_error"] = max(last, 90.0 / line["epoch"] ** 2)
    _, (panel, *_) = drawn(student, alone)
    heights = [panel.transData.transform((1, error))[1] for error in (0.56, 4.23, 6.76, 90.0)]
    shares = [(b - a) / panel.bbox.height for a, b in itertools.pairwise(heights)]
    assert min(shares) > 0.08 and shares[0] > 0.3
    _, (panel, *_) = drawn(run(epochs=4))  # 60 to 15
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert labels == ["15", "20", "30", "40", "50"]


def test_errors_of_zero_are_at_the_bottom_of_a_logarithmic_axis():
    zero = run(epochs=20)
    zero.lines[-1]["train_error"] = 0.0
    _, (_, panel, *_) = drawn(zero)
    assert panel.get_yscale() == "symlog" and panel.get_ylim()[0] == 0
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert labels == ["0", "5", "10", "20", "50"]
    zero.lines[-2]["train_error"] = 0.07
    _, (_, panel, *_) = drawn(zero)
    boxes = [label.get_window_extent() for label in panel.get_yticklabels()]
    assert len(boxes) > 3
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


def test_text_of_curves_is_not_cut():
    figure, axes = drawn(run("at+kd", losses={"distillation": 0.1, "attention": 1e-5}, epochs=9))
    for panel in axes:
        for text in (panel._left_title, panel.xaxis.label, *panel.get_yticklabels()):
            box = text.get_window_extent()
            if text.get_text():
                assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, text.get_text()


def test_read_takes_finished_and_unfinished_runs(finished, tmp_path):
    workdir, result, _ = finished
    found = curves.read(workdir)
    assert found.teacher_error == result["teacher_test_error"] and len(found.lines) == 2
    assert found.teacher == curves.read(workdir / "teacher").workdir
    assert (found.method, found.network) == ("at", "wrn_10_0.25")
    (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
    with pytest.raises(UserError, match="has no finished epoch yet"):
        curves.read(tmp_path)
    (tmp_path / "metrics.jsonl").write_text((workdir / "metrics.jsonl").read_text())
    assert curves.read(tmp_path).teacher_error is None
