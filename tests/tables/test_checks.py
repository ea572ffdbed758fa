"""Commands that are refused: other settings or data, damage, and folders that cannot hold runs."""

import dataclasses
import errno
import json
import os
import shutil
import types

import pytest

from at_jax.errors import UserError
from at_jax.tables import command as program
from at_jax.tables import execution, job, plan, registry
from at_jax.training.components import datasets
from at_jax.training.files import run_files

NONE, AT = "wrn_10_0.25-none", "wrn_10_0.25-wrn_10_0.5-at"


def run(out, *arguments):
    return program.main(["tiny", "--out", str(out), *arguments])


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["--epochs", "4"], "epochs: 2 there, 4 now"),
        (["--set", "at.p=3"], "at.p: 2.0 there, 3.0 now"),
    ],
)
def test_results_of_other_settings_are_refused(committed, arguments, named, capsys):
    assert run(committed, *arguments) == 2
    error = capsys.readouterr().err
    assert "holds results of other settings" in error and named in error and error.count("\n") == 1


@pytest.mark.parametrize("key", ["seeds", "options", "changes", "finished"])
def test_a_damaged_table_is_refused(committed, capsys, key):
    table = json.loads((committed / "table.json").read_text())
    if key == "seeds":
        del table["rows"][0][key]
    elif key == "finished":
        del table["rows"][0]["seeds"][0][key]
    else:
        table[key] = None
        if key == "options":
            del table[key]
    (committed / "table.json").write_text(json.dumps(table))
    assert run(committed) == 2
    assert "table.json is damaged" in capsys.readouterr().err


def test_results_of_other_data_are_refused(committed, fake_training, monkeypatch, capsys):
    load = datasets.load_dataset

    def other(settings):
        dataset = load(settings)
        train = dataset.identity.train._replace(digest="0" * 16)
        identity = dataset.identity._replace(train=train)
        return types.SimpleNamespace(name=dataset.name, identity=identity)

    monkeypatch.setattr(datasets, "load_dataset", other)
    before = (committed / "table.json").read_bytes()
    # Even if nothing is left to train: the table would be that of other data.
    monkeypatch.setattr(plan, "common_config", lambda table, **_: table.config())
    for seeds in ("1", "2"):
        assert run(committed, "--seeds", seeds, "--data", "tfds_name") == 2
        assert "runs of one table must have the same data" in capsys.readouterr().err
    assert fake_training.calls == [] and (committed / "table.json").read_bytes() == before


@pytest.mark.parametrize(
    ("key", "value"), [("optimizer.learning_rate", 0.77), ("at.beta", 5.0), ("batch_size", 10)]
)
def test_results_of_another_config_of_the_table_are_refused(
    committed, make_tiny_table, monkeypatch, capsys, key, value
):
    def edited():
        config = make_tiny_table().config()
        config.update_from_flattened_dict({key: value})
        return config

    table = dataclasses.replace(make_tiny_table(), config=edited)
    monkeypatch.setitem(registry.TABLES, "tiny", lambda: table)
    assert run(committed, "--seeds", "2") == 2
    assert f"{key}: " in capsys.readouterr().err


def test_a_run_on_other_images_is_listed_as_failed_and_stops_nothing(
    fake_training, tmp_path, read_table, monkeypatch
):
    finish = fake_training._finish

    def other_images(config, workdir, *, together):
        finish(config, workdir, together=together)
        if config.method == "at":
            split = {"images": 1, "digest": "0"}
            other = {"class_names": list("ab"), "train": split, "test": split}
            run_files.record_identity(workdir, {"run": "r", "data": other})

    monkeypatch.setattr(fake_training, "_finish", other_images)
    assert run(tmp_path, "--seeds", "2") == 0
    none, at = read_table(tmp_path)["rows"]
    assert len(none["seeds"]) == 2 and not at["seeds"]
    assert "trained on other images" in at["failed"][0]["reason"]


def test_a_command_started_at_the_same_time_with_other_settings_is_refused(
    fake_training, tmp_path, read_table, capsys
):
    base = ["tiny", "--out", str(tmp_path), "--seeds", "1"]
    planned = job.from_options(program._parse([*base, "--epochs", "4"]))
    assert program.main(base) == 0
    before = read_table(tmp_path)
    with pytest.raises(UserError, match="epochs: 2 there, 4 now"):
        execution.run(planned)
    assert read_table(tmp_path) == before


def test_a_merge_compares_configs_and_repeated_options(fake_training, tmp_path, capsys):
    assert run(tmp_path / "a", "--seeds", "1", "--set", "batch_size=10") == 0
    assert run(tmp_path / "b", "--seeds", "1", "--rows", "*none") == 0
    assert run(tmp_path / "b", "--merge", "--epochs", "2") == 0
    assert run(tmp_path / "b", "--merge", "--epochs", "4") == 2
    assert "epochs: 2 there, 4 now" in capsys.readouterr().err
    for name in (AT, "teachers"):
        shutil.copytree(
            tmp_path / "a" / "runs" / name, tmp_path / "b" / "runs" / name, dirs_exist_ok=True
        )
    assert run(tmp_path / "b", "--merge") == 2
    error = capsys.readouterr().err
    assert "batch_size: 10 there, 20 now" in error and "--workdir" not in error


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "0"),
        ("seed", 1.5),
        ("seed", -1),
        ("seed", 10**9),
        ("test_error", float("nan")),
        ("test_error", float("inf")),
        ("finished", 3),
        ("errors", None),
    ],
)
def test_an_entry_of_another_type_is_damage(committed, capsys, key, value):
    table = json.loads((committed / "table.json").read_text())
    table["rows"][0]["seeds"][0][key] = value
    del table["checksum"]
    (committed / "table.json").write_text(json.dumps(table))
    assert run(committed) == 2
    error = capsys.readouterr().err
    assert "table.json is damaged" in error and key in error and error.count("\n") == 1


def test_damage_of_a_row_that_is_also_a_teacher_is_found(committed, capsys):
    table = json.loads((committed / "table.json").read_text())
    teacher, (entry,) = table["teachers"][0], table["rows"][0]["seeds"]
    table["teachers"][0] = teacher | {"name": f"{NONE}/seed0", "run": dict(entry)}
    entry["test_error"] = None
    del table["checksum"]
    (committed / "table.json").write_text(json.dumps(table))
    assert run(committed) == 2
    assert "table.json is damaged (" in capsys.readouterr().err


def test_a_changed_digit_is_damage(committed, capsys):
    text = (committed / "table.json").read_text()
    (committed / "table.json").write_text(text.replace('"test_error": 20.0', '"test_error": 10.0'))
    assert run(committed) == 2
    assert "table.json is damaged" in capsys.readouterr().err


def test_an_out_that_cannot_hold_runs_is_one_line(fake_training, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "out" / "runs").mkdir(parents=True)
    (tmp_path / "out" / "runs" / NONE).touch()
    for out, message in (
        ("file", "--out"),
        ("file/below", "--out"),
        ("out", f"{NONE} must be a directory, got a file"),
    ):
        assert run(tmp_path / out, "--seeds", "1") == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert fake_training.calls == []


def test_a_full_disk_is_one_line(fake_training, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(execution.run_files, "write_text", fail)
    assert run(tmp_path) == 1
    error = capsys.readouterr().err
    expected = (
        f"{tmp_path} cannot be written (No space left on device); finished runs and checkpoints are"
    )
    assert expected in error and error.count("\n") == 1


def test_scoped_changes_count_where_they_have_an_effect(committed, fake_training, read_table):
    config = registry.TABLES["tiny"]().config()
    same = f"at:at.beta={config.at.beta:g}", f"none:optimizer.momentum={config.optimizer.momentum}"
    for change in (*same, "at:at.beta=3"):
        code = 2 if change == "at:at.beta=3" else 0
        assert run(committed, "--seeds", "1", "--set", change) == code
    # Rows without a run take any value.
    shutil.rmtree(committed / "runs", ignore_errors=True)
    for name in ("table.json", "table.md"):
        (committed / name).unlink()
    assert run(committed, "--seeds", "1", "--rows", "*none") == 0
    assert run(committed, "--seeds", "1", "--rows", "*-at", "--set", "at:at.beta=3") == 0
    assert run(committed, "--seeds", "1", "--rows", "*-at", "--set", "at:at.beta=4") == 2


def test_recorded_results_without_a_row_are_not_dropped(
    committed, make_tiny_table, monkeypatch, capsys
):
    (kept, _) = make_tiny_table().rows
    monkeypatch.setitem(
        registry.TABLES, "tiny", lambda: dataclasses.replace(make_tiny_table(), rows=(kept,))
    )
    for arguments in (["--seeds", "1"], ["--merge"]):
        assert run(committed, *arguments) == 2
        assert (
            f"holds results that this table has no row for ({AT}/seed0)" in capsys.readouterr().err
        )


@pytest.mark.parametrize("name", ["table.md", "errors.png"])
def test_folder_with_files_that_a_table_would_replace_is_refused(
    fake_training, tmp_path, capsys, name
):
    (tmp_path / name).write_text("mine")
    assert run(tmp_path, "--seeds", "1") == 2
    error = capsys.readouterr().err
    assert f"holds no table, and files that one would replace ({name}): choose" in error
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert fake_training.calls == []
