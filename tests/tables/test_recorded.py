"""Committed results, which count as done without the folders of their runs. Nothing is trained here."""

import json
import shutil

import pytest

from at_jax.tables import command as program
from at_jax.tables import plots
from at_jax.training import run_files

NONE, AT, TEACHER = "wrn_10_0.25-none", "wrn_10_0.25-wrn_10_0.5-at", "teachers/wrn_10_0.5"


@pytest.fixture
def committed(fake_training, tmp_path, monkeypatch):
    """A folder with the table.json of seed 0, and no runs."""
    monkeypatch.setattr(plots, "draw", lambda *_: [])
    assert program.main(["tiny", "--out", str(tmp_path), "--seeds", "1"]) == 0
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "plan.json").unlink()
    fake_training.calls.clear()
    return tmp_path


def run(out, *arguments):
    return program.main(["tiny", "--out", str(out), *arguments])


def test_recorded_seeds_are_not_trained_again(committed, fake_training, read_table, capsys):
    before = read_table(committed)
    assert run(committed, "--seeds", "1") == 0
    assert fake_training.calls == []
    assert "3 of 3 runs done, 0 left" in capsys.readouterr().out
    assert read_table(committed) == before


def test_missing_seeds_are_added_with_a_teacher_trained_again(
    committed, fake_training, read_table, monkeypatch
):
    finish = fake_training._finish

    def later(config, workdir, *, together):
        finish(config, workdir, together=together)
        result = run_files.read_result(workdir) | {"finished": "2026-03-04T05:06:07"}
        run_files.write_json(workdir / run_files.RESULT, result)

    monkeypatch.setattr(fake_training, "_finish", later)
    assert run(committed, "--seeds", "2") == 0
    assert fake_training.calls == [[TEACHER], [f"{NONE}/seed1"], [f"{AT}/seed1"]]
    table = read_table(committed)
    none, at = table["rows"]
    assert [seed["test_error"] for seed in none["seeds"]] == [20, 21]
    assert [seed["test_error"] for seed in at["seeds"]] == [10, 11]
    # The teacher of the recorded students is another run than that of the new ones.
    assert [each["name"] for each in table["teachers"]] == [f"{TEACHER} (earlier)", TEACHER]
    assert (
        "| teacher, wrn_10_0.5 (of earlier seeds) | 30.00" in (committed / "table.md").read_text()
    )

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
    (out / "plan.json").unlink()
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
    command = "at-jax tables tiny --seeds 2 --set runtime.tensorboard=False"
    assert f"The command that trains them: `{command}`" in text


@pytest.mark.parametrize(
    "arguments, named",
    [(["--epochs", "4"], "epochs: 2 there, 4 now"), (["--set", "at.p=3"], "changes: [] there")],
)
def test_results_of_other_settings_are_refused(committed, arguments, named, capsys):
    assert run(committed, *arguments) == 2
    error = capsys.readouterr().err
    assert "holds results of other settings" in error and named in error and error.count("\n") == 1


@pytest.mark.parametrize("key", ["seeds", "epochs", "changes", "finished"])
def test_a_damaged_table_is_refused(committed, capsys, key):
    table = json.loads((committed / "table.json").read_text())
    if key == "seeds":
        del table["rows"][0][key]
    elif key == "finished":
        del table["rows"][0]["seeds"][0][key]
    else:
        table[key] = None
        if key == "epochs":
            del table[key]
    (committed / "table.json").write_text(json.dumps(table))
    assert run(committed) == 2
    assert "table.json is damaged" in capsys.readouterr().err


def test_out_is_that_of_committed_results(committed, fake_training, monkeypatch):
    clone = committed / "clone"
    (clone / "results" / "tiny").mkdir(parents=True)
    shutil.copy(committed / "table.json", clone / "results" / "tiny")
    monkeypatch.chdir(clone)
    assert program.main(["tiny", "--seeds", "1"]) == 0
    assert fake_training.calls == [] and not (clone / "runs").exists()
