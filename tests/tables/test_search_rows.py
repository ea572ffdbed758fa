"""Searches of several rows: those of one label in several pairs, of clones, and with keys of a row."""

import shutil

import pytest
import small_run

from at_jax.tables import changes, registry
from at_jax.tables import command as program
from at_jax.tables.rows import Row, Table
from at_jax.terms import TERMS, AttentionTransfer
from at_jax.training.files import json_files, run_files
from at_jax.training.non_finite import NonFinite

SMALL, MIDDLE, LARGE = "wrn_10_0.25", "wrn_10_0.5", "wrn_10_1"
HELD_OUT = ("--set", "data.validation_examples=20")


def _make_table() -> Table:
    rows = [
        Row(student, teacher, method, changes, label=method)
        for student, teacher in ((SMALL, MIDDLE), (MIDDLE, LARGE))
        for method, changes in (("none", {}), ("at", {}), ("at+kd", {"transfer.decay": "cosine"}))
    ]
    late = Row(SMALL, MIDDLE, "at", {"at.begin_epoch": 1}, "late", label="at-late")
    return Table("Two pairs", _config, (*rows, late))


def _config():
    config = small_run.config().copy_and_resolve_references()
    config.teacher.epochs = 0  # those of the student
    return config


@pytest.fixture
def pairs(monkeypatch, fake_training):
    """A table of two pairs; the teacher of the first is the student of the second."""
    monkeypatch.setitem(registry.TABLES, "pairs", _make_table)
    return fake_training


def run(out, *arguments):
    return program.main(["pairs", "--out", str(out), *arguments])


def trained(fake_training):
    found = sorted(name for group in fake_training.calls for name in group)
    fake_training.calls.clear()
    return found


def test_a_label_of_several_pairs_is_chosen_by_the_mean_over_them(
    pairs, tmp_path, read_table, monkeypatch
):
    errors = {(SMALL, 1): 10.0, (SMALL, 5): 11.0, (MIDDLE, 1): 14.0, (MIDDLE, 5): 12.0}
    finish = pairs._finish

    def with_error(config, workdir, *, together):
        finish(config, workdir, together=together)
        if config.method == "at":
            result = run_files.read_result(workdir)
            result["test_error"] = errors[config.student, config.at.beta]
            run_files.write_json(workdir / run_files.RESULT, result)

    monkeypatch.setattr(pairs, "_finish", with_error)
    options = (*HELD_OUT, "--search", "at.beta=1,5")
    first = ("--rows", f"{SMALL}-none,{SMALL}-{MIDDLE}-at")
    assert run(tmp_path, *options, *first) == 0
    chosen = read_table(tmp_path / "search")["search"]["chosen"]["at"]
    assert (chosen["values"], chosen["error"]) == ({"at.beta": "1"}, 10.0)
    trained(pairs)
    # The second pair is added, and labels only of it has the config of the first pair's teacher.
    more = ("--rows", f"{MIDDLE}-none,{MIDDLE}-{LARGE}-at")
    assert run(tmp_path, *options, *more) == 0
    chosen = read_table(tmp_path / "search")["search"]["chosen"]["at"]
    assert (chosen["values"], chosen["error"]) == ({"at.beta": "5"}, 11.5)
    assert len(chosen["rows"]) == 2
    assert trained(pairs) == [
        f"teachers/{LARGE}",
        *(f"{MIDDLE}-none-optimizer.learning_rate={rate}/seed0" for rate in ("0.05", "0.1")),
        *(f"{MIDDLE}-{LARGE}-at-at.beta={beta}/seed0" for beta in (1, 5)),
    ]


def test_rows_chosen_in_a_clone_are_added_to_those_of_its_search(pairs, tmp_path, read_table):
    options = (*HELD_OUT, "--search", "at.beta=1,5")
    assert run(tmp_path / "a", *options, "--rows", f"{SMALL}-none,{SMALL}-{MIDDLE}-at") == 0
    before = read_table(tmp_path / "a" / "search")
    (tmp_path / "b" / "search").mkdir(parents=True)
    shutil.copy(tmp_path / "a" / "search" / "table.json", tmp_path / "b" / "search")
    trained(pairs)
    assert run(tmp_path / "b", *options, "--rows", f"{SMALL}-{MIDDLE}-at") == 0
    after = read_table(tmp_path / "b" / "search")
    assert trained(pairs) == [] and after["rows"] == before["rows"]
    assert after["search"] == before["search"]


def test_keys_that_a_row_sets_but_that_do_not_define_it_can_be_searched_and_set(
    pairs, tmp_path, read_table
):
    rows = ("--rows", f"{SMALL}-*", "--seeds", "1")
    search = (
        "--search",
        "at+kd:transfer.decay=constant,linear",
        "--set",
        "at+kd:transfer.decay=none",
    )
    assert run(tmp_path, *HELD_OUT, *rows, *search) == 0
    tried = {
        row["changes"]["transfer.decay"]
        for row in read_table(tmp_path / "search")["rows"]
        if row["label"] == "at+kd"
    }
    assert tried == {"constant", "linear"}
    assert run(tmp_path, *rows, "--searched") == 0
    config = json_files.read(
        tmp_path / "runs" / f"{SMALL}-{MIDDLE}-at+kd" / "seed0" / run_files.CONFIG
    )
    assert config["transfer"]["decay"] == "constant"


def test_epochs_that_are_tried_do_not_scale_with_the_schedule(pairs, tmp_path, read_table):
    options = ("--search", "at:at.begin_epoch=1,3", "--epochs", "4", "--rows", f"{SMALL}-*-at")
    assert run(tmp_path, *HELD_OUT, *options) == 0
    rows = read_table(tmp_path / "search")["rows"]
    assert [row["changes"]["at.begin_epoch"] for row in rows] == [1, 3]


def test_command_of_open_runs_sets_the_values_of_the_search_by_its_flag(
    pairs, tmp_path, read_table
):
    rows = ("--rows", f"{SMALL}-{MIDDLE}-at")
    assert run(tmp_path, *HELD_OUT, "--search", "at.beta=1,5", *rows) == 0
    assert run(tmp_path, "--searched", "--seeds", "1", "--set", "at.p=3", *rows) == 0
    rows = f"--rows {SMALL}-{MIDDLE}-at"
    expected = f"at-jax tables pairs --seeds 1 {rows} --searched --set at.p=3 --out OUT"
    assert read_table(tmp_path)["command"] == expected
    assert run(tmp_path, "--merge") == 0
    assert read_table(tmp_path)["command"] == expected


def test_searched_refuses_a_label_whose_trials_all_diverged(pairs, tmp_path, capsys):
    pairs.failures["at"] = NonFinite("step 8: loss is not finite", tmp_path)
    rows = ("--rows", f"{SMALL}-{MIDDLE}-at")
    assert run(tmp_path, *HELD_OUT, "--search", "at.beta=1,5", *rows) == 0
    capsys.readouterr()
    assert run(tmp_path, "--searched", *rows) == 2
    expected = "error: --searched: all values of at diverged: add others with --search\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--search", "none:data.validation_examples=0,20"], "--search: data.validation_examples"),
        (["--search", "at:data.split_seed=0,1"], "--search: data.split_seed must be the same in"),
        (["--search", "at:teacher.epochs=1,2"], "--search: teacher.epochs must be the same in all"),
        (["--search", "none:data.test_fraction=0.1,0.2"], "--search: data.test_fraction must be"),
        (["--set", "at:data.image_size=8"], "--set: data.image_size must be the same in all rows"),
        (["--set", "at:teacher.weights=F"], "--set: teacher.weights must be the same in all rows"),
        (["--merge", "--rows", "*-at"], "--merge takes all runs of the folder"),
        (["--search", "at.beta=1,5", "--set", "at:data.validation_examples=20"], "--set: data.val"),
        (["--set", "at:epochs=3"], "--set: the schedules must scale with epochs"),
        (["--search", "at-late:at.begin_epoch=0,1"], "is defined by at.begin_epoch=1"),
        (["--search", "at.beta=1,5", "--set", "at.begin_epoch=0"], "is defined by at.begin_epoch"),
    ],
)
def test_errors_of_rows_must_be_comparable(pairs, tmp_path, capsys, arguments, message):
    assert run(tmp_path / "out", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert pairs.calls == []


def test_weight_of_a_term_that_a_program_added_can_be_searched(monkeypatch):
    class Own(AttentionTransfer):
        """A term of the user."""

        name = "own"

    monkeypatch.setitem(TERMS, "own", Own)
    assert changes.split("own.beta=1,10", "--search") == ("", "own.beta", "1,10")
