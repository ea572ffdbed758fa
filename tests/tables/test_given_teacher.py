"""Tables whose teacher the user gives."""

import json
import shutil

import pytest
import small_run

from at_jax import loop
from at_jax.training.files import run_files

PAIR = "wrn_10_0.25-wrn_10_0.5"


def finished_run(workdir, **changes):
    """A finished run_own, as far as a table reads a teacher that is given."""
    run_files.claim(workdir, small_run.config(**changes).to_dict(), identity={"run": "a"})
    run_files.write_json(workdir / run_files.RESULT, {"test_error": 30.0})
    return workdir


def test_given_teacher_is_not_trained(run_own, fake_training, tmp_path, read_table):
    teacher = finished_run(tmp_path / "teacher", student="wrn_10_0.5", method="none")
    given = ("--set", f"teacher.checkpoint={teacher}")
    assert run_own("--methods", "none,at", "--seeds", "1", *given) == 0
    assert fake_training.calls == [["wrn_10_0.25-none/seed0"], [f"{PAIR}-at/seed0"]]
    out = tmp_path / "out"
    none, at = (
        run_files.read_config(out / "runs" / f"{name}/seed0")
        for name in ("wrn_10_0.25-none", f"{PAIR}-at")
    )
    assert (none["teacher"]["checkpoint"], at["teacher"]["checkpoint"]) == ("", str(teacher))
    assert read_table(out)["teachers"] == []
    assert "| teacher, wrn_10_0.5 | 30.00 | 30.00 |  | given |" in (out / "table.md").read_text()
    assert "--set teacher.checkpoint=RUN" in read_table(out)["command"]
    assert "Set for all rows" not in (out / "table.md").read_text()


def test_given_teacher_cannot_be_left_out_or_added_later(run_own, fake_training, tmp_path, capsys):
    teacher = finished_run(tmp_path / "teacher", student="wrn_10_0.5", method="none")
    given = ("--set", f"teacher.checkpoint={teacher}")
    assert run_own("--methods", "none,at", "--seeds", "1", *given) == 0
    assert run_own("--methods", "none,at", "--seeds", "2") == 2
    assert "have a teacher that was given: give it again" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "out")
    assert run_own("--methods", "none,at", "--seeds", "1") == 0
    assert run_own("--methods", "none,at", "--seeds", "2", *given) == 2
    assert "have a teacher that the table trained" in capsys.readouterr().err


def test_given_teacher_of_another_network_is_refused(run_own, fake_training, tmp_path, capsys):
    teacher = finished_run(tmp_path / "teacher", student="wrn_10_1", method="none")
    assert run_own("--methods", "none,at", "--set", f"teacher.checkpoint={teacher}") == 2
    printed = capsys.readouterr().err
    assert "must be a run of wrn_10_0.5, the teacher of row" in printed
    assert "give teacher=wrn_10_1 to --config" in printed
    assert not (tmp_path / "out").exists()


def test_students_of_different_given_teachers_are_no_table(
    run_own, fake_training, tmp_path, read_table, capsys
):
    teacher = finished_run(tmp_path / "teacher", student="wrn_10_0.5", method="none")
    given = ("--set", f"teacher.checkpoint={teacher}")
    assert run_own("--methods", "at,kd", "--seeds", "1", *given) == 0
    for method, digest in (("at", "one"), ("kd", "two")):
        workdir = tmp_path / "out" / "runs" / f"{PAIR}-{method}" / "seed0"
        run_files.record_identity(workdir, {**run_files.read_identity(workdir), "teacher": digest})
    assert run_own("--methods", "at,kd", "--merge") == 2
    printed = capsys.readouterr().err
    assert (
        f"one teacher, got teachers of different weights for {PAIR}-at/seed0, {PAIR}-kd" in printed
    )
    assert run_own("--methods", "at,kd", "--merge", *given) == 2
    assert "--merge trains nothing, got --set of a teacher" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher_test_error": "x", "teacher": "a"}, "has teacher_test_error 'x' and teacher 'a'"),
        ({"teacher_test_error": 3.0, "teacher": 4}, "has teacher_test_error 3.0 and teacher 4"),
        ({"teacher_test_error": 3.0, "teacher": None}, "have a teacher that was given"),
    ],
)
def test_damaged_teacher_of_a_table_is_named(
    run_own, fake_training, tmp_path, capsys, change, message
):
    assert run_own("--methods", "none", "--seeds", "1") == 0
    path = tmp_path / "out" / "table.json"
    table = json.loads(path.read_text())
    table["rows"][0]["seeds"][0].update(change)
    run_files.write_json(path, table)
    shutil.rmtree(tmp_path / "out" / "runs")
    assert run_own("--methods", "none", "--merge") == 2
    assert message in capsys.readouterr().err


def test_rows_are_trained_with_the_weights_of_a_given_teacher(
    run_own, tmp_path, read_table, capsys
):
    teacher = small_run.config(student="wrn_10_0.5", method="none", epochs=1)
    error = loop.train_and_evaluate(teacher, tmp_path / "first")["test_error"]
    given = ("--methods", "at", "--epochs", "1", "--set")
    assert run_own(*given, f"teacher.checkpoint={tmp_path / 'first'}", "--seeds", "1") == 0
    ((seed,),) = [row["seeds"] for row in read_table(tmp_path / "out")["rows"]]
    assert seed["teacher_test_error"] == pytest.approx(error)
    workdir = tmp_path / "out" / "runs" / f"{PAIR}-at" / "seed0"
    assert (
        seed["teacher"] == json.loads((workdir / "config.json").read_text())["identity"]["teacher"]
    )
    # The same weights may have moved; other weights are another teacher.
    shutil.move(tmp_path / "first", tmp_path / "moved")
    assert run_own(*given, f"teacher.checkpoint={tmp_path / 'moved'}", "--seeds", "2") == 0
    with teacher.unlocked():
        teacher.seed = 1
    loop.train_and_evaluate(teacher, tmp_path / "second")
    capsys.readouterr()
    assert run_own(*given, f"teacher.checkpoint={tmp_path / 'second'}", "--seeds", "3") == 2
    assert f"for {PAIR}-at/seed0, this command: give the same" in capsys.readouterr().err
