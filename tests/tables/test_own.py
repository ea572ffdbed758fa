"""Tables of the user's own config, and a teacher that the user gives."""

import json
import shutil

import pytest
import small_run

from at_jax import loop
from at_jax.errors import UserError
from at_jax.tables import command as program
from at_jax.tables import own
from at_jax.training.files import run_files

CONFIG = """
import small_run

def get_config(parts=None):
    return small_run.config(method="at").copy_and_resolve_references()
"""
PAIR = "wrn_10_0.25-wrn_10_0.5"


@pytest.fixture
def config(tmp_path):
    """The path of a config file of the user."""
    path = tmp_path / "study.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def run(config, tmp_path):
    """Runs the command on that config, with the table in ``out``."""

    def command(*options):
        return program.main([f"--config={config}", "--out", str(tmp_path / "out"), *options])

    return command


def finished_run(workdir, **changes):
    """A finished run, as far as a table reads a teacher that is given."""
    run_files.claim(workdir, small_run.config(**changes).to_dict(), identity={"run": "a"})
    run_files.write_json(workdir / run_files.RESULT, {"test_error": 30.0})
    return workdir


def test_table_has_labels_only_and_the_methods_of_the_config():
    table = own.table("digits:student=wrn_10_2,method=kd+at", "")
    assert [row.method for row in table.rows] == ["none", "at+kd"]
    assert {row.pair for row in table.rows} == {"wrn_10_2 <- wrn_16_2"}
    assert [row.method for row in own.table("digits", "kd, none").rows] == ["kd", "none"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def get_config(parts=None): return 3", "must return a config with all keys, got int"),
        ("import nowhere_at_all", r"study.py must define get_config\(parts=None\), got ModuleNotFound"),
        ("def get_config(:", "got SyntaxError: invalid syntax"),
        ("x = 1", "got AttributeError"),
        (
            "import ml_collections\ndef get_config(parts=None):\n"
            "    return ml_collections.ConfigDict({'student': 'wrn_10_1'})",
            "got a config without accumulation, .* and [0-9]+ more: change values of",
        ),
    ],
)  # fmt: skip
def test_table_of_a_bad_config_names_the_file(config, content, message):
    config.write_text(content)
    with pytest.raises(UserError, match=message):
        own.table(str(config), "none,at")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "none"], "--methods needs the --config that they are for"),
        (["digits", "--config=digits"], "got also the table 'digits'"),
        (["--config=digits", "--methods", "none,att"], "--methods must be none, one of kd, at"),
        (["--config=digits", "--methods", "at+kd,kd+at"], "--methods must name each method once"),
        (["--config=digits", "--methods", ","], "--methods must name each method once, got ','"),
        (["--config=digits:method=att"], "method must be none, one of kd, at"),
        (["--config=digits:studdent=a"], "did you mean 'student'?"),
        (["--config=digts"], "did you mean digits?"),
        (["--config=digits:student=foo", "--methods", "none"], "student='foo': unknown network 'foo'"),
        (["--config=folder:teacher=wrn_10_1", "--methods", "at"], "use --data DIR"),
        (["--config=digits", "--search", "at.beta=1,2"], "got data.validation_examples=0: set the num"),
        (["--config=digits", "--set", "teacher.checkpoint=nowhere"], "nowhere holds no run"),
        (["--config=digits", "--set", "at:teacher.checkpoint=a"], "must be the same in all rows"),
    ],
)  # fmt: skip
def test_bad_options_are_one_line(arguments, message, tmp_path, capsys):
    assert program.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and message in printed and printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_list_prints_the_rows_of_a_config(capsys):
    assert program.main(["--config=digits", "--methods", "none,at+kd", "--list"]) == 0
    rows = [line.strip() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == ["wrn_10_1-none", "wrn_10_1-wrn_16_2-at+kd"]


def test_methods_are_rows_with_one_teacher(
    run, config, fake_training, tmp_path, read_table, capsys
):
    assert run("--methods", "none,at,kd", "--seeds", "2") == 0
    printed = capsys.readouterr().out.splitlines()
    head = next(index for index, line in enumerate(printed) if line.startswith("wrn_10_0.25 <- "))
    assert [line.split() for line in printed[head + 1 : head + 4]] == [
        ["none", "20.50", "%", "2"],
        ["at", "10.50", "%", "2", "-10.00", "±", "0.00"],
        ["kd", "10.50", "%", "2", "-10.00", "±", "0.00"],
    ]
    assert fake_training.calls[0] == ["teachers/wrn_10_0.5"] and len(fake_training.calls) == 7
    table = read_table(tmp_path / "out")
    assert table["title"] == "Methods for wrn_10_0.25 with teacher wrn_10_0.5"
    assert [(row["label"], row["mean"]) for row in table["rows"]] == [
        ("none", 20.5),
        ("at", 10.5),
        ("kd", 10.5),
    ]
    assert table["command"].startswith(f"at-jax tables --config={config} --methods none,at,kd --se")


def test_methods_of_earlier_commands_stay(run, fake_training, tmp_path, read_table):
    assert run("--methods", "none,at", "--seeds", "2") == 0
    assert run("--methods", "kd+at", "--seeds", "1") == 0
    table = read_table(tmp_path / "out")
    assert [(row["label"], len(row["seeds"])) for row in table["rows"]] == [
        ("none", 2),
        ("at", 2),
        ("at+kd", 1),
    ]
    assert "--methods none,at,at+kd --seeds 2" in table["command"]
    shutil.rmtree(tmp_path / "out" / "runs")
    assert run("--merge") == 0
    assert read_table(tmp_path / "out")["rows"] == table["rows"]


def test_folder_of_another_table_is_refused(run, fake_training, tmp_path, capsys):
    assert program.main(["tiny", "--out", str(tmp_path / "out"), "--seeds", "1"]) == 0
    assert run("--methods", "none,at") == 2
    assert "title: 'A tiny table' there, 'Methods for wrn" in capsys.readouterr().err


def test_default_folder_has_the_name_of_the_config(config, fake_training, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert program.main([f"--config={config}", "--seeds", "1"]) == 0
    assert (tmp_path / "runs" / "tables" / "study_methods" / "table.md").is_file()


def test_search_of_a_config_uses_its_held_out_images(run, fake_training, tmp_path, read_table):
    options = ("--methods", "none,at", "--set", "data.validation_examples=100")
    assert run(*options, "--search", "at.beta=1,10") == 0
    search = read_table(tmp_path / "out" / "search")
    assert (
        search["measured_on"] == "validation"
        and search["settings"]["data.validation_examples"] == 100
    )
    assert set(search["search"]["chosen"]) == {"none", "at"}
    assert run("--methods", "none,at", "--searched", "--seeds", "1") == 0
    assert "at:at.beta=1" in read_table(tmp_path / "out")["changes"]


def test_given_teacher_is_not_trained(run, fake_training, tmp_path, read_table):
    teacher = finished_run(tmp_path / "teacher", student="wrn_10_0.5", method="none")
    given = ("--set", f"teacher.checkpoint={teacher}")
    assert run("--methods", "none,at", "--seeds", "1", *given) == 0
    assert fake_training.calls == [["wrn_10_0.25-none/seed0"], [f"{PAIR}-at/seed0"]]
    out = tmp_path / "out"
    none, at = (
        run_files.read_config(out / "runs" / f"{name}/seed0")
        for name in ("wrn_10_0.25-none", f"{PAIR}-at")
    )
    assert (none["teacher"]["checkpoint"], at["teacher"]["checkpoint"]) == ("", str(teacher))
    assert read_table(out)["teachers"] == []
    assert "| teacher, wrn_10_0.5 | 30.00 | 30.00 |  | given |" in (out / "table.md").read_text()
    assert str(teacher) in read_table(out)["command"]


def test_given_teacher_cannot_be_left_out_or_added_later(run, fake_training, tmp_path, capsys):
    teacher = finished_run(tmp_path / "teacher", student="wrn_10_0.5", method="none")
    given = ("--set", f"teacher.checkpoint={teacher}")
    assert run("--methods", "none,at", "--seeds", "1", *given) == 0
    assert run("--methods", "none,at", "--seeds", "2") == 2
    assert "have a teacher that was given: give it again" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "out")
    assert run("--methods", "none,at", "--seeds", "1") == 0
    assert run("--methods", "none,at", "--seeds", "2", *given) == 2
    assert "have a teacher that the table trained" in capsys.readouterr().err


def test_given_teacher_of_another_network_is_refused(run, fake_training, tmp_path, capsys):
    teacher = finished_run(tmp_path / "teacher", student="wrn_10_1", method="none")
    assert run("--methods", "none,at", "--set", f"teacher.checkpoint={teacher}") == 2
    assert "must be a run of wrn_10_0.5, the teacher of row" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_rows_are_trained_with_the_weights_of_a_given_teacher(run, tmp_path, read_table, capsys):
    teacher = small_run.config(student="wrn_10_0.5", method="none", epochs=1)
    error = loop.train_and_evaluate(teacher, tmp_path / "first")["test_error"]
    given = ("--methods", "at", "--epochs", "1", "--set")
    assert run(*given, f"teacher.checkpoint={tmp_path / 'first'}", "--seeds", "1") == 0
    ((seed,),) = [row["seeds"] for row in read_table(tmp_path / "out")["rows"]]
    assert seed["teacher_test_error"] == pytest.approx(error)
    workdir = tmp_path / "out" / "runs" / f"{PAIR}-at" / "seed0"
    assert (
        seed["teacher"] == json.loads((workdir / "config.json").read_text())["identity"]["teacher"]
    )
    # The same weights may have moved; other weights are another teacher.
    shutil.move(tmp_path / "first", tmp_path / "moved")
    assert run(*given, f"teacher.checkpoint={tmp_path / 'moved'}", "--seeds", "2") == 0
    with teacher.unlocked():
        teacher.seed = 1
    loop.train_and_evaluate(teacher, tmp_path / "second")
    capsys.readouterr()
    assert run(*given, f"teacher.checkpoint={tmp_path / 'second'}", "--seeds", "3") == 2
    assert "must be the teacher of the runs in table.json" in capsys.readouterr().err
