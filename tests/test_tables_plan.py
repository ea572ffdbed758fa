"""Tables before anything trains: which runs they take, how these are divided, what bad input says."""

import dataclasses
import pathlib
import re

import pytest

from at_jax.tables import __main__ as program
from at_jax.tables import command, division, markdown, plan, studies, summary
from at_jax.tables.paper import ACTIVATION, GRADIENT, MAPPINGS, Figure
from at_jax.tables.studies import Row


def cells(name, out="out", seeds=1, **options):
    table = studies.TABLES[name]()
    common = plan.common_config(table, **options)
    return plan.cells_of(table, plan.choose_rows(table, []), common, seeds, pathlib.Path(out))


def test_the_figures_that_were_verified():
    # shared/reference names these and no others.
    verified = {
        (pair, column): figure.error
        for pair, figures in ACTIVATION.items()
        for column, figure in figures.items()
        if figure.status == "verified"
    }
    a, b, c = (("wrn_16_1", "wrn_16_2"), ("wrn_16_1", "wrn_40_1"), ("wrn_16_2", "wrn_40_2"))
    assert verified == {
        (a, "none"): 8.77, (a, "teacher"): 6.31,
        (b, "none"): 8.77, (b, "at"): 8.25, (b, "kd"): 8.39, (b, "teacher"): 6.58,
        (c, "none"): 6.31, (c, "at"): 5.85, (c, "kd"): 6.08, (c, "teacher"): 5.23,
    }  # fmt: skip
    others = [
        *MAPPINGS.values(),
        *GRADIENT.values(),
        *ACTIVATION["nin_thin_bn", "nin_wide_bn"].values(),
    ]
    assert {figure.status for figure in others} == {"unverified"}


def test_every_figure_is_listed_with_its_status():
    text = command.listing()
    assert re.search(r"wrn_16_1-none +paper  8\.77 \(verified\)", text)
    assert re.search(r"wrn_16_1-wrn_16_2-at\+kd +paper  7\.51 \(unverified\)", text)
    assert re.search(r"wrn_16_1-wrn_16_2-at-sum4 +paper  8\.09 \(unverified\)", text)
    assert re.search(r"nin_thin-nin_wide-gradient_at +paper 12\.10 \(unverified\)", text)
    assert text.count("paper") == text.count("verified)")


def test_the_recipe_of_the_paper():
    for cell in cells("cifar10_activation"):
        config = cell.config
        assert (config.epochs, config.batch_size) == (200, 128)
        assert (config.optimizer.learning_rate, config.optimizer.drop_factor) == (0.1, 0.2)
        assert tuple(config.optimizer.drop_epochs) == (60, 120, 160)
        assert (config.optimizer.momentum, config.optimizer.weight_decay) == (0.9, 5e-4)
        assert (config.at.beta, config.kd.temperature, config.kd.alpha) == (1e3, 4.0, 0.9)
        decays = config.method == "at+kd"
        assert (config.transfer.decay != "constant") == decays


@pytest.mark.parametrize(
    ("epochs", "drops"),
    [(200, (60, 120, 160)), (10, (3, 6, 8)), (6, (2, 4, 5)), (2, (1,)), (1, ())],
)
def test_epochs_scale_the_schedule(epochs, drops):
    for cell in cells("cifar10_activation", epochs=epochs):
        assert (cell.config.epochs, tuple(cell.config.optimizer.drop_epochs)) == (epochs, drops)


def test_a_teacher_of_its_own_length_is_scaled_too():
    # The digits' teacher trains 12 epochs with drops at 6 and 9 beside students of 100.
    teacher, *students = cells("digits", epochs=50)
    assert (teacher.config.epochs, tuple(teacher.config.optimizer.drop_epochs)) == (6, (3, 5))
    assert {tuple(cell.config.optimizer.drop_epochs) for cell in students} == {(25, 38)}


def test_teachers_come_first_are_shared_and_are_rows_where_they_can():
    found = cells("cifar10_activation", seeds=2)
    names = [cell.name for cell in found]
    assert len(set(names)) == len(names)
    # WRN-16-2 alone is a row, and the teacher of another.
    teachers = {
        "teachers/nin_wide_bn",
        "wrn_16_2-none/seed0",
        "teachers/wrn_40_1",
        "teachers/wrn_40_2",
    }
    assert set(names[:4]) == teachers
    # 4 pairs x 5 methods x 2 seeds, less WRN-16-1 alone twice, plus three teachers that are no row.
    assert len(names) == 40 - 2 + 3
    for cell in found:
        if cell.needs:
            assert str(cell.needs).removeprefix("out/runs/") in teachers
            assert cell.config.teacher.model in str(cell.needs)
    assert not any(cell.needs for cell in found if cell.config.method == "none")


def test_the_rows_chosen_do_not_move_a_teacher():
    table = studies.TABLES["cifar10_activation"]()
    common = plan.common_config(table)
    rows = plan.choose_rows(table, ["wrn_16_1-wrn_16_2-at"])
    found = plan.cells_of(table, rows, common, 1, pathlib.Path("out"))
    assert [cell.name for cell in found] == ["wrn_16_2-none/seed0", "wrn_16_1-wrn_16_2-at/seed0"]


def test_set_overrides_what_a_row_says():
    table = studies.TABLES["cifar10_activation"]()
    changes = (
        "transfer.decay=cosine",
        "data.mean=(1.0,2.0,3.0)",
        "data.std=(1.0,1.0,1.0)",
        "epochs=7",
    )
    common = plan.common_config(table, changes=changes)
    for cell in plan.cells_of(table, table.rows, common, 1, pathlib.Path("out"), changes):
        assert cell.config.transfer.decay == "cosine"
        assert tuple(cell.config.data.mean) == (1.0, 2.0, 3.0)
        assert cell.config.epochs == 7


def test_data_is_a_folder_or_a_name_of_tfds(tmp_path):
    table = studies.TABLES["cifar10_activation"]()
    folder = plan.common_config(table, source=str(tmp_path)).data
    assert (folder.source, folder.data_dir, folder.name) == ("folder", str(tmp_path), "")
    named = plan.common_config(table, source="imagenette/160px-v2").data
    assert (named.source, named.data_dir, named.name) == ("tfds", "", "imagenette/160px-v2")
    own = plan.common_config(table).data
    assert (own.source, own.name) == ("tfds", "cifar10")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digts"], "did you mean digits"),
        ([], "name a table, one of cifar10_activation"),
        (["digits", "--rows", "nothing"], "--rows: expected names or patterns of wrn_10_1-none"),
        (["digits", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["digits", "--epochs", "-1"], "--epochs must be at least 1, got -1"),
        (["digits", "--together", "0"], "--together must be at least 1"),
        (["digits", "--shard", "3/2"], "--shard must be I/N"),
        (["digits", "--shard", "a"], "--shard must be I/N"),
        (["digits", "--set", "at.betta=3"], "did you mean at.beta"),
        (["digits", "--set", "at.beta=much"], "at.beta is of type float, got 'at.beta=much'"),
        (["digits", "--set", "at.beta=-1.0"], "at.beta must be at least 0"),
        (["digits", "--set", "seed=3"], "said by the rows and --seeds"),
        (["cifar10_activation", "--data", "./nowhere/at/all"], "there is no folder"),
        (["digits", "--merge"], "holds no table"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path, capsys):
    assert program.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_shards_share_the_work_and_the_teacher():
    all_cells = cells("digits", seeds=3)
    parts = [division.shard(all_cells, f"{index}/3", 1) for index in (1, 2, 3)]
    (teacher,) = [cell for cell in all_cells if cell.row is None]
    students = [cell.name for part in parts for cell in part if cell is not teacher]
    assert sorted(students) == sorted(c.name for c in all_cells if c is not teacher)
    assert all(part[0] is teacher for part in parts)


def test_groups_are_of_one_order_of_images():
    students = cells("digits", seeds=2)[1:]
    by_seed = division.groups(students, 4)
    assert [{cell.seed for cell in group} for group in by_seed] == [{0}, {1}]
    assert [len(group) for group in division.groups(students, 3)] == [2, 2, 2, 2]
    for cell in students:
        cell.config.data.order_seed = 0
    (one,) = division.groups(students, 8)
    assert len(one) == 8


def test_cells_that_came_differently_far_are_not_mixed(tmp_path):
    students = cells("digits", out=tmp_path)[1:]
    none, at, kd, at_kd = students
    for cell, steps in ((none, (4, 8)), (at, (4, 8, 12)), (kd, ()), (at_kd, ())):
        for step in steps:
            (cell.workdir / "checkpoints" / str(step)).mkdir(parents=True)
    # Apart by one checkpoint, as a kill leaves them, is near enough; fresh ones start by themselves.
    assert division.groups_to_resume([none, at], 4) == [[none, at]]
    assert division.groups_to_resume(students, 4) == [[kd, at_kd], [none], [at]]


def test_a_variant_stays_what_its_name_says(tmp_path, capsys):
    arguments = ["cifar10_mappings", "--out", str(tmp_path / "out"), "--set", "at.p=3.0"]
    assert program.main(arguments) == 2
    assert "is the one with at.p=1.0" in capsys.readouterr().err


def test_a_student_alone_stands_beside_the_teachers_that_are_asked_for():
    table = studies.TABLES["cifar10_activation"]()
    chosen = plan.choose_rows(table, ["wrn_16_1-none", "wrn_16_1-wrn_40_1-at"])
    assert [row.pair for row in chosen] == ["wrn_16_1 <- wrn_40_1"] * 2
    assert len(plan.choose_rows(table, ["wrn_16_1-none"])) == 2


def test_markdown_by_hand():
    row = Row("s", "t", "at", {"at.p": 4.0}, label="at, F_sum^4", paper=Figure(8.09, "unverified"))
    cell = cells("cifar10_mappings")[4]
    assert cell.value("at.p") == 4.0
    numbers = {
        "title": "T", "data": "CIFAR-10 (JPEG q75)", "measured_on": "test", "epochs": 6,
        "drop_epochs": [2, 4], "batch_size": 128, "changes": [], "teachers": [],
        "paper_epochs": 200, "rows": [summary._row(row, [cell])],
    }  # fmt: skip
    text = markdown.render(numbers)
    assert (
        "Test error in percent on CIFAR-10 (JPEG q75), after 6 epochs (the rate drops after 2, 4)"
        in text
    )
    assert "| `at, F_sum^4` (at.p=4.0) |  |  |  | 0 of 1 | 8.09 | unverified |" in text
    assert "Nothing is finished yet." in text


def test_rows_have_names_that_tell_them_apart():
    for make in studies.TABLES.values():
        table = make()
        by_name = {}
        for row in table.rows:
            same = by_name.setdefault(row.name, row)
            alike = dataclasses.replace(row, teacher="", paper=None)
            assert alike == dataclasses.replace(same, teacher="", paper=None)
