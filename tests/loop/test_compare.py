"""Comparison runs: the same student with other methods, in the program of a run."""

import shutil

import pytest
import small_run

from at_jax import loop
from at_jax.errors import UserError
from at_jax.tables import plan, registry
from at_jax.terms import Distillation
from at_jax.training import config, preparation, programs, run_log
from at_jax.training.components.arguments import Arguments
from at_jax.training.files import run_files


@pytest.fixture(scope="module")
def compared(finished, tmp_path_factory):
    """Config, workdir and log lines of a run with two comparison runs."""
    lines, workdir = [], tmp_path_factory.mktemp("compared")
    settings = small_run.with_teacher(finished, method="at", compare=("none", "at", "kd"))
    with pytest.MonkeyPatch.context() as patch:
        for module in (loop, programs):
            patch.setattr(module, "log", lines.append)
        result = loop.train_and_evaluate(settings, workdir)
    return settings, workdir, result, lines


def result_of(workdir):
    return run_files.read_result(workdir)


def test_comparison_runs_are_ordinary_runs(compared):
    _, workdir, result, _ = compared
    assert result == result_of(workdir)
    assert not (workdir / "at").exists()  # the run itself
    for method in ("none", "kd"):
        of_method = result_of(workdir / method)
        assert of_method["method"] == method and of_method["trained_together"] == 3
        stored = run_files.read_config(workdir / method)
        assert (stored["method"], stored["compare"]) == (method, [])
        assert bool(stored["teacher"]["checkpoint"]) == (method == "kd")
        assert len(small_run.lines_of(workdir / method)) == 2


def test_table_of_a_comparison_ends_with_the_run_and_its_teacher(compared):
    _, workdir, result, lines = compared
    table, where = lines
    names = ["labels only", "distillation (kd)", "attention transfer (at)", "teacher"]
    errors = [result_of(workdir / m)["test_error"] for m in ("none", "kd")]
    errors += [result["test_error"], result["teacher_test_error"]]
    head, *rows = table.splitlines()
    assert "test error" in head and where == f"Results written to {workdir}"
    for row, name, error in zip(rows, names, errors, strict=True):
        assert row.strip().startswith(name) and f" {error:.2f} %" in row


@pytest.mark.slow  # trains two runs
def test_comparison_run_that_is_missing_is_trained_alone(compared, tmp_path, monkeypatch):
    settings, workdir, result, _ = compared
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    shutil.rmtree(copy / "none")
    said = []
    monkeypatch.setattr(programs, "log", said.append)
    assert loop.train_and_evaluate(settings, copy) == result
    alone = result_of(copy / "none")
    assert alone["trained_together"] == 1
    # The order of images is the same; the losses of the first epoch agree up to rounding.
    ours, theirs = (small_run.lines_of(w / "none")[0]["loss"] for w in (copy, workdir))
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert said[0].splitlines()[1].strip().startswith("labels only")


def test_compare_may_change_and_another_config_may_not(compared):
    settings, workdir, result, _ = compared
    without = small_run.config(
        teacher__checkpoint=settings.teacher.checkpoint, method="at", compare=()
    )
    assert loop.train_and_evaluate(without, workdir) == result
    other = small_run.config(
        teacher__checkpoint=settings.teacher.checkpoint, method="at", compare=("none",), seed=3
    )
    with pytest.raises(UserError, match="seed: 0 there, 3 now"):
        loop.train_and_evaluate(other, workdir)


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        (("bt",), "each method of compare must be .* replace 'bt'"),
        (("at+kd", "kd+at"), "compare must name each method once"),
        ((1,), "compare must be methods"),
        ("none", "compare must be"),
    ],
)
def test_invalid_compare_raises(tmp_path, compare, message):
    changed = small_run.config()
    changed.unlock()
    with changed.ignore_type():
        changed.compare = compare
    with pytest.raises(UserError, match=message):
        loop.train_and_evaluate(changed, tmp_path)
    assert not list(tmp_path.iterdir())


def test_error_of_a_comparison_run_comes_before_the_teacher_is_trained(tmp_path):
    # The run itself has no such term, and the teacher's run none at all.
    changed = small_run.config(method="kd", compare=("at",), at__begin_epoch=5, epochs=2)
    with pytest.raises(UserError, match="compare: at: term at must begin before the last epoch"):
        loop.train_and_evaluate(changed, tmp_path)
    assert not list(tmp_path.iterdir())


def test_method_that_needs_a_teacher_is_left_out_where_there_is_none(monkeypatch, tmp_path):
    class Main:
        workdir = tmp_path

        class run:
            method, teacher = "none", None

    said = []
    monkeypatch.setattr(preparation, "log", said.append)
    given = small_run.config(method="none", compare=("at", "none"))
    assert preparation.prepare_comparisons(given, Main, Arguments(), lambda _: None) == []
    assert said == ["compare: at is skipped, because none has no teacher"]


def test_method_of_the_config_is_compared_with_passed_terms(finished, tmp_path, monkeypatch):
    trained = []

    def train(runs, *_):
        trained.extend(each.workdir.name for each in runs)
        raise KeyboardInterrupt

    monkeypatch.setattr(programs, "train_compared", train)
    changed = small_run.with_teacher(finished, compare=("none", "at"))  # of method at
    with pytest.raises(KeyboardInterrupt):
        loop.train_and_evaluate(changed, tmp_path / "run", terms=(Distillation(),))
    assert trained == ["run", "none", "at"]


@pytest.mark.parametrize("diverged", ["run", "none"])
def test_comparison_run_that_diverges_can_be_left_out(
    finished, tmp_path, monkeypatch, compiled_once, diverged
):
    collect = run_log.RunLog.collect

    def diverges(self, done, measured):
        if self.workdir.name == diverged:
            raise loop.NonFinite("step 4: loss is not finite: lower it", self.workdir)
        collect(self, done, measured)

    monkeypatch.setattr(run_log.RunLog, "collect", diverges)
    changed = small_run.with_teacher(finished, method="at", compare=("none",))
    with pytest.raises(loop.NonFinite, match="step 4: loss is not finite: lower it") as error:
        loop.train_and_evaluate(changed, tmp_path / "run")
    advice = ", or leave 'none' out of compare and run the same command again"
    assert str(error.value).endswith(advice) == (diverged == "none")
    changed.compare = ()
    if diverged == "none":
        assert loop.train_and_evaluate(changed, tmp_path / "run")["epochs"] == 2


def test_compare_belongs_to_single_runs(tmp_path):
    with pytest.raises(
        UserError, match="cannot have comparison runs, got compare=.*: set compare="
    ):
        loop.train_together([(small_run.config(method="none", compare=("at",)), tmp_path)])
    table = registry.TABLES["digits"]()
    assert table.config().compare and plan.common_config(table).compare == ()
    teacher = config.teacher_config(small_run.config(compare=("none",)))
    assert teacher.compare == ()
