"""Committed results, which count as done without the folders of their runs. Nothing is trained here."""

import pathlib
import re
import shlex
import shutil
import types

import numpy as np
import pytest

from at_jax.figures import style
from at_jax.tables import command, job, options
from at_jax.tables import command as program
from at_jax.training import dry_run
from at_jax.training.components import datasets

NONE, AT, TEACHER = "wrn_10_0.25-none", "wrn_10_0.25-wrn_10_0.5-at", "teachers/wrn_10_0.5"
ROOT = pathlib.Path(__file__).parents[2]


def run(out, *arguments):
    return program.main(["tiny", "--out", str(out), *arguments])


def test_recorded_seeds_are_not_trained_again(committed, fake_training, read_table, capsys):
    before = read_table(committed)
    assert run(committed, "--seeds", "1") == 0
    assert fake_training.calls == []
    assert "3 of 3 runs done, 0 left" in capsys.readouterr().out
    assert read_table(committed) == before


def test_missing_seeds_are_added_with_a_teacher_trained_again(committed, fake_training, read_table):
    assert run(committed, "--seeds", "2") == 0
    assert fake_training.calls == [[TEACHER], [f"{NONE}/seed1"], [f"{AT}/seed1"]]
    table = read_table(committed)
    none, at = table["rows"]
    assert [seed["test_error"] for seed in none["seeds"]] == [20, 21]
    assert [seed["test_error"] for seed in at["seeds"]] == [10, 11]
    # The teacher of the recorded students is another run than that of the new ones.
    assert [each["name"] for each in table["teachers"]] == [TEACHER] * 2
    assert [each["teacher"] for each in at["seeds"]] == [
        each["run"]["run"] for each in table["teachers"]
    ]
    text = (committed / "table.md").read_text()
    for seed in (0, 1):
        assert f"| teacher, wrn_10_0.5 (of seed {seed}) | 30.00" in text

    fake_training.calls.clear()
    assert run(committed, "--seeds", "2") == 0
    assert fake_training.calls == [] and read_table(committed) == table


@pytest.mark.parametrize("searched", [False, True])
def test_a_command_for_other_rows_or_fewer_seeds_keeps_what_is_recorded(
    committed, fake_training, read_table, searched
):
    options = ("--set", "data.validation_examples=20", "--search", "at.beta=1,7")
    options, out = (options, committed / "search") if searched else ((), committed)
    assert run(committed, *options, "--seeds", "2") == 0
    before = read_table(out)
    shutil.rmtree(out / "runs")
    fake_training.calls.clear()
    assert run(committed, *options, "--rows", "*-at", "--seeds", "1") == 0
    after = read_table(out)
    assert fake_training.calls == [] and after["rows"] == before["rows"]
    if not searched:  # only the chosen rows are trained
        assert run(committed, "--rows", "*-at", "--seeds", "3") == 0
        assert [len(row["seeds"]) for row in read_table(out)["rows"]] == [2, 3]
        assert fake_training.calls == [[TEACHER], [f"{AT}/seed2"]]


def test_a_folder_that_was_begun_counts_in_place_of_the_recorded_seed(
    committed, fake_training, tmp_path
):
    other = tmp_path / "other"
    fake_training.failures["none"] = RuntimeError("after config.json")
    assert run(other, "--seeds", "1", "--rows", "*none") == 1
    fake_training.failures.clear()
    fake_training.calls.clear()
    shutil.copytree(other / "runs", committed / "runs")
    assert run(committed, "--seeds", "1") == 0
    assert fake_training.calls == [[f"{NONE}/seed0"]]


def test_open_seeds_are_listed_with_their_command(committed, fake_training, read_table):
    fake_training.failures["at"] = KeyboardInterrupt()
    assert run(committed, "--seeds", "2", "--set", "runtime.tensorboard=False") == 130
    text = (committed / "table.md").read_text()
    assert (
        f"- `{AT}`: seed 1\n" in text
        and NONE not in text.partition("Open:")[2].partition("Measured")[0]
    )
    rows = f"--rows {AT} " if NONE not in text.partition("Open:")[2] else ""
    command = f"at-jax tables tiny --seeds 2 {rows}--set runtime.tensorboard=False --out OUT"
    assert f"The command that trains them: `{command}`" in text


def test_out_is_that_of_committed_results(committed, fake_training, monkeypatch):
    clone = committed / "clone"
    (clone / "results" / "tiny").mkdir(parents=True)
    shutil.copy(committed / "table.json", clone / "results" / "tiny")
    monkeypatch.chdir(clone)
    assert program.main(["tiny", "--seeds", "1"]) == 0
    assert fake_training.calls == [] and not (clone / "runs").exists()


def test_committed_results_of_other_settings_are_not_those_of_a_command(
    committed, fake_training, monkeypatch
):
    clone = committed / "clone"
    (clone / "results" / "tiny_short").mkdir(parents=True)
    shutil.copy(committed / "table.json", clone / "results" / "tiny_short")
    monkeypatch.chdir(clone)
    assert program.main(["tiny", "--seeds", "1", "--epochs", "4"]) == 0
    assert (clone / "runs" / "tables" / "tiny" / "table.json").is_file()


def test_documented_commands_are_planned_in_a_clone(monkeypatch):
    # Without data and training: their options, and the folder that they continue.
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(
        datasets, "load_dataset", lambda _: types.SimpleNamespace(name="", identity=None)
    )
    monkeypatch.setattr(options, "check_can_save", lambda _: None)
    no_teacher = types.SimpleNamespace(teacher=None)
    monkeypatch.setattr(dry_run, "check", lambda *_, **__: no_teacher)
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    text = "\n".join(page.read_text() for page in pages) + command._DESCRIPTION
    lines = sorted(
        set(re.findall(r"^ *at-jax tables (\w+ [^\n`]*?)(?:   .*)?$", text, re.MULTILINE))
    )
    assert len(lines) >= 12
    planned = {}
    for line in lines:
        words = [
            {"DIR": str(ROOT), "OUT": "runs/out"}.get(word, word) for word in shlex.split(line)
        ]
        if "--merge" in words:
            continue
        if "--searched" not in words:  # needs the search in its folder
            job.from_options(program._parse(words))
        if "--out" in words:  # without it, the command continues the committed results
            place = words.index("--out")
            del words[place : place + 2]
        planned[line] = job.from_options(program._parse(words)).out
    found = {str(out) for out in planned.values()}
    assert {"results/cifar10_activation_15_epochs", "results/digits_searched"} <= found


def test_fewer_seeds_and_rows_keep_runs_with_and_without_folders(
    fake_training, tmp_path, read_table
):
    fake_training.failures["at"] = RuntimeError("out of memory")
    assert run(tmp_path, "--seeds", "3") == 1
    fake_training.failures.clear()
    for arguments in (["--seeds", "1", "--rows", "*none"], ["--seeds", "2", "--rows", "*none"]):
        assert run(tmp_path, *arguments) == 0
        none, at = read_table(tmp_path)["rows"]
        assert [seed["seed"] for seed in none["seeds"]] == [0, 1, 2]
        # Open runs stay listed, with the command that trains them.
        assert [each["seed"] for each in at["failed"]] == [0, 1, 2]
    (tmp_path / "table.json").unlink()
    for other in ("seed0_backup", "seed01", "seed1000000000"):
        shutil.copytree(tmp_path / "runs" / NONE / "seed0", tmp_path / "runs" / NONE / other)
    assert run(tmp_path, "--seeds", "1", "--rows", "*none") == 0
    assert [len(row["seeds"]) for row in read_table(tmp_path)["rows"]] == [3, 0]


def test_every_teacher_of_recorded_students_is_listed(committed, fake_training, read_table):
    for seeds in ("2", "3"):
        assert run(committed, "--seeds", seeds) == 0
        shutil.rmtree(committed / "runs")
    table = read_table(committed)
    teachers = [each["run"]["run"] for each in table["teachers"]]
    assert len(set(teachers)) == 3
    assert [seed["teacher"] for seed in table["rows"][1]["seeds"]] == teachers
    assert f"- {3 + 6} runs on 1 x cpu" in (committed / "table.md").read_text()


def test_an_epoch_whose_line_is_lost_leaves_a_gap(fake_training, tmp_path, read_table, monkeypatch):
    drawn = {}
    monkeypatch.setattr(style, "save", lambda figure, path: drawn.update({path.name: figure}))
    assert run(tmp_path, "--seeds", "2") == 0
    for seeds, first in (((0,), 90.0), ((0, 1), None)):
        for seed in seeds:
            path = tmp_path / "runs" / NONE / f"seed{seed}" / "metrics.jsonl"
            path.write_text(path.read_text().splitlines(keepends=True)[-1])
        assert run(tmp_path, "--seeds", "2") == 0
        errors = [each["errors"] for each in read_table(tmp_path)["rows"][0]["seeds"]]
        assert errors[0] == [None, 20.0]
        y = drawn["curves.png"].axes[0].get_lines()[0].get_ydata()
        assert (np.ma.is_masked(y[0]) if first is None else y[0] == first) and y[1] == 20.5


def test_a_command_that_trains_nothing_keeps_the_options(committed, read_table):
    before = read_table(committed)["options"]
    assert run(committed, "--seeds", "1", "--together", "2") == 0
    assert read_table(committed)["options"] == before == ["--out", "OUT"]
