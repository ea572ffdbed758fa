"""The search on held-out images, and the values that it sets. Nothing is trained here."""

import json
import pathlib
import shutil

import pytest

from at_jax.tables import command as program
from at_jax.tables import plan, registry
from at_jax.tables.changes import labels, parse, resolve, values
from at_jax.training.components import datasets
from at_jax.training.files import json_files, run_files
from at_jax.training.non_finite import NonFinite

NONE, AT = "wrn_10_0.25-none", "wrn_10_0.25-wrn_10_0.5-at"
# At least one image of each class.
HELD_OUT = ("--set", "data.validation_examples=20")


@pytest.fixture
def errors(fake_training, monkeypatch):
    """Test errors by (key, value): a fake training with other errors than those of the method."""
    found = {("at.beta", 10.0): 12.5, ("optimizer.learning_rate", 0.2): 15.0}
    finish = fake_training._finish

    def with_error(config, workdir, *, together):
        finish(config, workdir, together=together)
        result = run_files.read_result(workdir)
        for (key, value), error in found.items():
            section, name = key.split(".")
            if config[section][name] == value and config.method in (section, "none"):
                result["test_error"] = error
        run_files.write_json(workdir / run_files.RESULT, result)

    monkeypatch.setattr(fake_training, "_finish", with_error)
    return found


def run(out, *arguments):
    return program.main(["tiny", "--out", str(out), *HELD_OUT, *arguments])


def test_search_tries_every_value_and_as_many_learning_rates(
    errors, fake_training, tmp_path, read_table, capsys
):
    errors["at.beta", 10.0] = 8.0
    assert run(tmp_path, "--search", "at.beta=1,10,100", "--together", "6") == 0
    table = read_table(tmp_path / "search")
    rate = registry.TABLES["tiny"]().config().optimizer.learning_rate
    assert table["search"]["space"] == {
        "none": {"optimizer.learning_rate": [f"{rate * factor:g}" for factor in (0.5, 1, 2)]},
        "at": {"at.beta": ["1", "10", "100"]},
    }
    assert table["measured_on"] == "validation"
    assert table["search"]["chosen"]["at"] == {
        "rows": [f"{AT}-at.beta=10"],
        "values": {"at.beta": "10"},
        "error": 8.0,
        "options": ["--set at:at.beta=10"],
    }
    assert "at: 8.00 % with --set at:at.beta=10" in capsys.readouterr().out
    text = (tmp_path / "search" / "table.md").read_text()
    assert "| `at` | `at.beta=10` | 8.00 | 8.00 to 8.00 | 1 of 1 | chosen |" in text
    assert "Each method has 3 trials" in text and "difference" not in text.lower()
    assert not (tmp_path / "table.json").exists()
    assert [path.name for path in tmp_path.rglob("*.png")] == ["search.png"]
    # Neither the teacher nor a student is trained on held-out images.
    configs = list((tmp_path / "search").rglob(run_files.CONFIG))
    held_out = {json_files.read(path)["data"]["validation_examples"] for path in configs}
    assert (len(configs), held_out) == (7, {20})


def test_search_resumes_from_its_table_and_keeps_values_of_earlier_commands(
    errors, fake_training, tmp_path, read_table
):
    assert run(tmp_path, "--search", "at.beta=1,10") == 0
    committed = tmp_path / "clone"
    (committed / "search").mkdir(parents=True)
    (committed / "search" / "table.json").write_text(
        (tmp_path / "search" / "table.json").read_text()
    )
    fake_training.calls.clear()
    more = ("--search", "at.beta=100", "--search", "none:optimizer.learning_rate=0.3")
    assert run(committed, *more) == 0
    trained = sorted(name for group in fake_training.calls for name in group)
    assert trained == [
        "teachers/wrn_10_0.5",
        f"{NONE}-optimizer.learning_rate=0.3/seed0",
        f"{AT}-at.beta=100/seed0",
    ]
    space = read_table(committed / "search")["search"]["space"]
    assert (
        space["at"]["at.beta"] == ["1", "10", "100"]
        and len(next(iter(space["none"].values()))) == 3
    )


def test_learning_rates_of_labels_only_grow_with_the_values_of_the_others(
    errors, fake_training, tmp_path, read_table
):
    for tried_values, rates in (("1,10", 2), ("100", 3)):
        fake_training.calls.clear()
        assert run(tmp_path, "--search", f"at.beta={tried_values}") == 0
        (tried,) = read_table(tmp_path / "search")["search"]["space"]["none"].values()
        assert len(tried) == rates
    # One more value of each is trained, and nothing again.
    assert len(fake_training.calls) == 2
    # Merging tries nothing new.
    before = read_table(tmp_path / "search")
    assert program.main(["tiny", "--out", str(tmp_path), "--search", "at.beta=5", "--merge"]) == 0
    assert read_table(tmp_path / "search") == before
    # Rates that are given are not replaced, whatever they are.
    given = ("--search", "none:optimizer.learning_rate=0.1", "--search", "at.beta=1,10,100")
    assert run(tmp_path / "given", *given) == 2


def test_a_search_may_set_values_of_rows_that_it_leaves_out(errors, tmp_path, read_table):
    values = (
        "--search",
        "at.beta=1,7",
        "--rows",
        "*-at",
        "--set",
        "none:optimizer.learning_rate=1",
    )
    for again in ([], [], ["--merge"]):
        assert run(tmp_path, *values[:2], *(again or values[2:])) == 0
        assert {row["label"] for row in read_table(tmp_path / "search")["rows"]} == {"at"}


def test_a_search_of_another_key_does_not_drop_trials(errors, tmp_path, read_table, capsys):
    assert run(tmp_path, "--search", "at.beta=1,10") == 0
    before = read_table(tmp_path / "search")
    assert run(tmp_path, "--search", "at.p=1,2") == 2
    assert "holds results that this table has no row for" in capsys.readouterr().err
    assert read_table(tmp_path / "search") == before


def test_searched_grows_with_its_search_and_names_what_changed(errors, tmp_path, capsys):
    at = ("--rows", "*-at")
    assert run(tmp_path, "--search", "at.beta=1,10", *at) == 0
    assert program.main(["tiny", "--out", str(tmp_path), "--seeds", "1", "--searched", *at]) == 0
    assert run(tmp_path, "--search", "none:optimizer.learning_rate=0.1,0.2") == 0
    assert program.main(["tiny", "--out", str(tmp_path), "--seeds", "1", "--searched"]) == 0
    other = ["tiny", "--out", str(tmp_path), "--seeds", "1", "--searched", "--epochs", "4"]
    assert program.main(other) == 2
    assert "give the same options" in capsys.readouterr().err
    errors["at.beta", 100.0] = 1.0
    assert (
        run(tmp_path, "--search", "at.beta=100", "--search", "none:optimizer.learning_rate=0.4")
        == 0
    )
    assert program.main(["tiny", "--out", str(tmp_path), "--seeds", "1", "--searched"]) == 2
    assert "the newly chosen values, use --set 'at:at.beta=100'" in capsys.readouterr().err
    own = ["--seeds", "1", "--searched", "--set", "at:at.beta=7"]
    assert program.main(["tiny", "--out", str(tmp_path), *own]) == 2
    assert "7.0 now): choose another --out, or give the same options" in capsys.readouterr().err


def test_search_of_two_keys_is_a_grid_and_set_does_not_override_it(
    errors, fake_training, tmp_path, read_table
):
    grid = ("--search", "at.beta=1,10", "--search", "at:at.p=1,2", "--set", "at.beta=7")
    assert run(tmp_path, *grid, "--rows", "*-at") == 0
    rows = read_table(tmp_path / "search")["rows"]
    tried = [(row["changes"]["at.beta"], row["changes"]["at.p"]) for row in rows]
    assert tried == [(1.0, 1.0), (1.0, 2.0), (10.0, 1.0), (10.0, 2.0)]
    # The order of the options does not matter: the same trials are done.
    fake_training.calls.clear()
    assert run(tmp_path, *grid[2:4], *grid[:2], *grid[4:], "--rows", "*-at") == 0
    assert fake_training.calls == []


def test_searched_sets_the_chosen_values_of_each_row(errors, tmp_path, read_table):
    # Labels only: 20 with all learning rates but one; at: 10 with all betas but one.
    errors["at.beta", 100.0], errors["optimizer.learning_rate", 0.4] = 5.0, 3.0
    options = ("--search", "at.beta=10,100", "--search", "none:optimizer.learning_rate=0.1,0.4")
    assert run(tmp_path, *options) == 0
    assert program.main(["tiny", "--out", str(tmp_path), "--seeds", "1", "--searched"]) == 0
    table = read_table(tmp_path)
    assert table["changes"] == ["at:at.beta=100", "none:optimizer.learning_rate=0.4"]
    assert "Set for some rows: `at:at.beta=100`, `none:opt" in (tmp_path / "table.md").read_text()
    found = {
        name: json_files.read(tmp_path / "runs" / name / "seed0" / run_files.CONFIG)
        for name in (NONE, AT)
    }
    assert found[NONE]["optimizer"]["learning_rate"] == 0.4
    assert found[AT]["optimizer"]["learning_rate"] != 0.4
    assert found[AT]["at"]["beta"] == 100
    assert table["measured_on"] == "test"


def test_out_of_a_search_is_not_that_of_the_table(errors, fake_training, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--search", "at.beta=1,10", "--search", "none:optimizer.learning_rate=0.1,0.2")
    assert program.main(["tiny", *HELD_OUT, *options]) == 0
    assert program.main(["tiny", "--seeds", "1", "--searched"]) == 0
    assert program.main(["tiny", "--seeds", "1"]) == 0
    folders = sorted(path.name for path in (tmp_path / "runs" / "tables").iterdir())
    assert folders == ["tiny", "tiny_searched"]
    # In a clone: --searched takes the committed search, unless the user has made one; --search makes one.
    found = tmp_path / "results" / "tiny_searched" / "search"
    found.mkdir(parents=True)
    shutil.move("runs/tables/tiny_searched/search/table.json", found)
    shutil.rmtree("runs")
    assert program.main(["tiny", "--seeds", "1", "--searched"]) == 0
    assert (found.parent / "table.md").exists() and not (tmp_path / "runs").exists()
    assert program.main(["tiny", *HELD_OUT, "--search", "at.beta=3"]) == 0
    assert program.main(["tiny", "--seeds", "1", "--searched"]) == 0
    own = tmp_path / "runs" / "tables" / "tiny_searched"
    assert "at:at.beta=3" in (own / "table.md").read_text()
    assert not (found / "table.md").exists()


def test_searched_without_a_finished_search_raises(errors, fake_training, tmp_path, capsys):
    assert program.main(["tiny", "--out", str(tmp_path), "--searched"]) == 2
    assert "run one with --search first" in capsys.readouterr().err
    fake_training.failures["at"] = RuntimeError("out of memory")
    assert run(tmp_path, "--search", "at.beta=1,10") == 1
    assert program.main(["tiny", "--out", str(tmp_path), "--searched"]) == 2
    assert "trials of at are not finished" in capsys.readouterr().err
    for content, message in (
        ({"search": {"space": []}}, "table.json is damaged (it lacks 'rows')"),
        ({"rows": []}, "table.json must hold the settings of its runs"),
    ):
        (tmp_path / "search" / "table.json").write_text(json.dumps(content))
        assert program.main(["tiny", "--out", str(tmp_path), "--searched"]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_a_trial_that_diverges_is_tried_and_not_chosen(
    errors, fake_training, tmp_path, read_table, monkeypatch
):
    finish = fake_training._finish

    def diverge(config, workdir, *, together):
        finish(config, workdir, together=together)
        if config.method == "at" and config.at.beta == 1:
            (workdir / run_files.RESULT).unlink()
            raise NonFinite("step 8: loss is not finite", workdir)

    monkeypatch.setattr(fake_training, "_finish", diverge)
    assert run(tmp_path, "--search", "at.beta=1,7") == 0
    table = read_table(tmp_path / "search")
    assert table["search"]["chosen"]["at"]["values"] == {"at.beta": "7"}
    assert (
        "| `at` | `at.beta=1` | diverged |  | 0 of 1 |"
        in (tmp_path / "search" / "table.md").read_text()
    )
    fake_training.calls.clear()
    monkeypatch.setattr(datasets, "load_dataset", None)  # nothing is left to train
    for folder in (tmp_path, tmp_path / "clone"):  # with the folders of the runs, and without them
        (folder / "search").mkdir(parents=True, exist_ok=True)
        (folder / "search" / "table.json").write_text(json.dumps(table))
        assert run(folder, "--search", "at.beta=1,7") == 0
        assert fake_training.calls == [] and read_table(folder / "search") == table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--search", "at.betta=1,2"], "--search must be KEY=VALUE with a config key"),
        (
            ["--search", "at.beta=1,much"],
            "--search: at.beta expects a value of type float, got 'much'",
        ),
        (["--search", "at.beta="], "--search: at.beta expects a value of type float, got ''"),
        (
            ["--search", "kd.temperature=2,4"],
            "--search kd:... names rows of the table, which are none, at",
        ),
        (["--search", "a t:at.beta=2,4"], "got 'a t': did you mean at?"),
        (["--search", "seed=1,2"], "seed differs from run to run"),
        (
            ["--search", "at.beta=1,2", "--search", "none:optimizer.learning_rate=0.3"],
            "the same number of trials, got at 2, none 1",
        ),
        (["--search", "at.beta=-1,2"], "got -1.0: try others, as in --search at.beta="),
        (["--search", "at.beta=1,2", "--searched"], "leave one out"),
        (
            ["--search", "at.beta=1,2", "--set", "data.validation_examples=0"],
            "data.validation_examples=0: leave it out",
        ),
        (["--set", "kd:kd.temperature=2"], "--set kd:... names rows of the table"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    fake_training, tmp_path, capsys, arguments, message
):
    out = tmp_path / "out"
    assert program.main(["tiny", "--out", str(out), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert fake_training.calls == [] and not list(out.rglob("*.json"))


def test_changes_of_some_rows_override_those_of_all():
    rows = registry.TABLES["digits"]().rows
    by_label = {row.label: row for row in rows}
    given = ["gradient_at:optimizer.momentum=0.3", "kd+at:optimizer.momentum=0.4"]
    given += ["optimizer.momentum=0.2"]
    given = resolve(map(parse, given), rows)
    expected = {"gradient_at": 0.3, "at+kd": 0.4, "at": 0.2, "gradient_at-t1": 0.2}
    key = "optimizer.momentum"
    assert {each: values(given, by_label[each])[key] for each in expected} == expected
    # Rows of a method that is no label: all of its variants.
    mappings = registry.TABLES["cifar10_mappings"]().rows
    assert len(labels("at", mappings)) == 4
    change = parse("a:at.p=2e0")
    assert (change.rows, change.value, str(change)) == ("a", 2.0, "a:at.p=2e0")


def test_epochs_of_a_row_scale_with_the_schedule():
    table = registry.TABLES["cifar10_gradient"]()
    late = [row for row in table.rows if row.variant == "late"]
    for epochs, begin in ((0, 67), (15, 5)):
        common = plan.common_config(table, epochs=epochs)
        specs = plan.expand(table, late, common, 1, pathlib.Path("out"))
        assert specs[-1].config.gradient_at.begin_epoch == begin
