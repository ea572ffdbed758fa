"""Tables of the user's own config."""

import json
import shutil

import pytest

from at_jax.errors import UserError
from at_jax.tables import command as program
from at_jax.tables import own
from at_jax.training.files import run_files

PAIR = "wrn_10_0.25-wrn_10_0.5"


def test_table_has_labels_only_and_the_methods_of_the_config():
    table = own.table("digits:student=wrn_10_2,method=kd+at", "")
    assert [row.method for row in table.rows] == ["none", "at+kd"]
    assert {row.pair for row in table.rows} == {"wrn_10_2 <- wrn_16_2"}
    assert [row.method for row in own.table("digits", "kd, none").rows] == ["kd", "none"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def get_config(parts=None): return 3", "must return a config with all keys, got int"),
        ("import nowhere_at_all", "study.py, line 1, cannot be loaded, got ModuleNotFoundError: No module"),
        ("x = 1\ndef get_config(:", "study.py, line 2, cannot be loaded, got SyntaxError: invalid"),
        ("x = 1", "got AttributeError.*must define get_config"),
        (
            "from configs import digits\ndef get_config(parts=None):\n    config = digits.get_config()\n"
            "    config.at.beta = 'much'\n    return config",
            "study.py, line 4, cannot be loaded, got TypeError.*: correct this line",
        ),
        (
            "import ml_collections\ndef get_config(parts=None):\n"
            "    return ml_collections.ConfigDict({'student': 'wrn_10_1'})",
            "got a config without accumulation, .* and [0-9]+ more: change values of",
        ),
    ],
)  # fmt: skip
def test_table_of_a_bad_config_names_the_file(own_config, content, message):
    own_config.write_text(content)
    with pytest.raises(UserError, match=message):
        own.table(str(own_config), "none,at")


def test_list_prints_the_rows_of_a_config(capsys):
    assert program.main(["--config=digits", "--methods", "none,at+kd", "--list"]) == 0
    rows = [line.strip() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == ["wrn_10_1-none", "wrn_10_1-wrn_16_2-at+kd"]


def test_methods_are_rows_with_one_teacher(
    run_own, own_config, fake_training, tmp_path, read_table, capsys
):
    assert run_own("--methods", "none,at,kd", "--seeds", "2") == 0
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
    assert table["command"].startswith(
        f"at-jax tables --config={own_config} --methods none,at,kd --se"
    )


def test_methods_of_earlier_commands_stay(run_own, fake_training, tmp_path, read_table):
    assert run_own("--methods", "none,at", "--seeds", "2") == 0
    assert run_own("--methods", "kd+at", "--seeds", "1") == 0
    table = read_table(tmp_path / "out")
    assert [(row["label"], len(row["seeds"])) for row in table["rows"]] == [
        ("none", 2),
        ("at", 2),
        ("at+kd", 1),
    ]
    assert "--methods none,at,at+kd --seeds 2" in table["command"]
    shutil.rmtree(tmp_path / "out" / "runs")
    assert run_own("--merge") == 0
    assert read_table(tmp_path / "out")["rows"] == table["rows"]


def test_folder_of_another_table_is_refused(run_own, fake_training, tmp_path, capsys):
    assert program.main(["tiny", "--out", str(tmp_path / "out"), "--seeds", "1"]) == 0
    assert run_own("--methods", "none,at") == 2
    assert "title: 'A tiny table' there, 'Methods for wrn" in capsys.readouterr().err


def test_default_folder_has_the_name_of_the_config(
    own_config, fake_training, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert program.main([f"--config={own_config}", "--seeds", "1"]) == 0
    assert (tmp_path / "runs" / "tables" / "study_methods" / "table.md").is_file()


def test_search_of_a_config_uses_its_held_out_images(run_own, fake_training, tmp_path, read_table):
    options = ("--methods", "none,at", "--set", "data.validation_examples=100")
    assert run_own(*options, "--search", "at.beta=1,10") == 0
    search = read_table(tmp_path / "out" / "search")
    assert (
        search["measured_on"] == "validation"
        and search["settings"]["data.validation_examples"] == 100
    )
    assert set(search["search"]["chosen"]) == {"none", "at"}
    assert run_own("--methods", "none,at", "--searched", "--seeds", "1") == 0
    assert "at:at.beta=1" in read_table(tmp_path / "out")["changes"]


def test_methods_with_and_without_a_changed_key_are_one_table(run_own, fake_training, tmp_path):
    assert run_own("--methods", "at", "--seeds", "1", "--set", "at.beta=10") == 0
    assert run_own("--methods", "kd", "--seeds", "1", "--set", "at.beta=10") == 0
    assert run_own("--methods", "none", "--rows", "kd", "--seeds", "2", "--set", "at.beta=10") == 0
    assert fake_training.calls[-1] == [f"{PAIR}-kd/seed1"]


def test_searched_values_of_other_methods_are_left_out(
    run_own, fake_training, tmp_path, read_table
):
    held_out = ("--set", "data.validation_examples=100")
    assert run_own("--methods", "none,at", *held_out, "--search", "at.beta=1,10") == 0
    assert run_own("--methods", "none,kd", "--searched", "--seeds", "1") == 0
    changed = [each.partition("=")[0] for each in read_table(tmp_path / "out")["changes"]]
    assert changed == ["none:optimizer.learning_rate"]


def test_teacher_of_its_own_network_is_trained_in_one_place(
    own_config, fake_training, tmp_path, read_table
):
    own_config.write_text(
        own_config.read_text().replace('method="at"', 'method="kd", teacher__model="wrn_10_0.25"')
    )
    options = ["--set", "teacher.train_examples=60", "--out", str(tmp_path / "out"), "--seeds", "1"]
    for methods in ("kd", "none,kd"):
        assert program.main([f"--config={own_config}", "--methods", methods, *options]) == 0
    teachers = [call for call in fake_training.calls if "teachers/wrn_10_0.25" in call]
    assert len(teachers) == 1 and fake_training.calls[-1] == ["wrn_10_0.25-none/seed0"]


def test_unknown_row_of_a_table_is_named(run_own, fake_training, tmp_path, capsys):
    assert run_own("--methods", "none", "--seeds", "1") == 0
    path = tmp_path / "out" / "table.json"
    table = json.loads(path.read_text())
    table["rows"][0]["label"] = "foo"
    run_files.write_json(path, table)
    assert run_own("--methods", "none", "--merge") == 2
    assert f"{path} is damaged (row 'foo' is no method)" in capsys.readouterr().err
