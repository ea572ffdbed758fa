"""Tables before anything trains: their rows, the runs they expand to, and how these are divided."""

import dataclasses
import pathlib

import pytest

from at_jax.errors import UserError
from at_jax.tables import changes, plan, registry, sharding
from at_jax.tables.paper import ACTIVATION, GRADIENT, MAPPINGS
from at_jax.training.config import default_config


def specs_of(name, out="out", seeds=1, **options):
    table = registry.TABLES[name]()
    common = plan.common_config(table, **options)
    return plan.expand(table, table.rows, common, seeds, pathlib.Path(out))


def test_paper_results_verified_are_these():
    # Compared with a second printing of the paper; a number must not be marked by accident.
    verified = {
        (pair, column): result.error
        for pair, results in ACTIVATION.items()
        for column, result in results.items()
        if result.status == "verified"
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
    assert {result.status for result in others} == {"unverified"}


def test_rows_of_one_name_are_one_run():
    for make in registry.TABLES.values():
        by_name = {}
        for row in make().rows:
            same = by_name.setdefault(row.name, row)
            alike = dataclasses.replace(row, teacher="", paper=None)
            assert alike == dataclasses.replace(same, teacher="", paper=None)


def test_expand_activation_table_follows_the_recipe_of_the_paper():
    for spec in specs_of("cifar10_activation"):
        config = spec.config
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
def test_scale_schedule_moves_drops_in_proportion(epochs, drops):
    scaled = plan.scale_schedule(default_config(), epochs)
    assert (scaled.epochs, tuple(scaled.optimizer.drop_epochs)) == (epochs, drops)


def test_scale_schedule_moves_warmup_and_begin_in_proportion():
    config = default_config()
    config.optimizer.warmup_epochs, config.transfer.begin_epoch = 5.0, 20
    config.at.begin_epoch = 50
    scaled = plan.scale_schedule(config, 20)  # a tenth
    assert (scaled.optimizer.warmup_epochs, scaled.transfer.begin_epoch) == (0.5, 2)
    assert (scaled.at.begin_epoch, scaled.f_actt.begin_epoch) == (5, -1)
    config.at.begin_epoch = config.epochs - 1  # the last epoch stays a part of the run
    assert plan.scale_schedule(config, 10).at.begin_epoch == 9


def test_scale_schedule_of_a_teacher_with_its_own_length():
    # The digits teacher trains 12 epochs with drops at 6 and 9; its students train 100.
    teacher, *students = specs_of("digits", epochs=50)
    assert (teacher.config.epochs, tuple(teacher.config.optimizer.drop_epochs)) == (6, (3, 5))
    assert {tuple(spec.config.optimizer.drop_epochs) for spec in students} == {(25, 38)}


def test_expand_lists_shared_teachers_first():
    found = specs_of("cifar10_activation", seeds=2)
    names = [spec.name for spec in found]
    assert len(set(names)) == len(names)
    # WRN-16-2 trained on labels only is a row, and the teacher of another row.
    teachers = {
        "teachers/nin_wide_bn",
        "wrn_16_2-none/seed0",
        "teachers/wrn_40_1",
        "teachers/wrn_40_2",
    }
    assert set(names[:4]) == teachers
    # 4 pairs x 5 methods x 2 seeds, minus the repeated wrn_16_1-none (2 seeds), plus 3 other teachers.
    assert len(names) == 40 - 2 + 3
    for spec in found:
        if spec.teacher_workdir:
            assert str(spec.teacher_workdir).removeprefix("out/runs/") in teachers
            assert spec.config.teacher.model in str(spec.teacher_workdir)
    assert not any(spec.teacher_workdir for spec in found if spec.config.method == "none")


def test_expand_of_chosen_rows_keeps_the_place_of_the_teacher():
    table = registry.TABLES["cifar10_activation"]()
    rows = registry.choose_rows(table, ["wrn_16_1-wrn_16_2-at"])
    found = plan.expand(table, rows, plan.common_config(table), 1, pathlib.Path("out"))
    assert [spec.name for spec in found] == ["wrn_16_2-none/seed0", "wrn_16_1-wrn_16_2-at/seed0"]


def test_expand_changes_override_rows():
    table = registry.TABLES["cifar10_activation"]()
    given = ("transfer.decay=cosine", "data.mean=(1.0,2.0,3.0)", "data.std=(1.0,1.0,1.0)")
    parsed = tuple(map(changes.parse, given))
    common = plan.common_config(table, changes=parsed)
    for spec in plan.expand(table, table.rows, common, 1, pathlib.Path("out"), parsed):
        assert spec.config.transfer.decay == "cosine"
        assert tuple(spec.config.data.mean) == (1.0, 2.0, 3.0)


def test_common_config_source_is_a_folder_or_a_tfds_name(tmp_path):
    table = registry.TABLES["cifar10_activation"]()
    folder = plan.common_config(table, source=str(tmp_path)).data
    assert (folder.source, folder.data_dir, folder.name) == ("folder", str(tmp_path), "")
    named = plan.common_config(table, source="imagenette/160px-v2").data
    assert (named.source, named.data_dir, named.name) == ("tfds", "", "imagenette/160px-v2")
    own = plan.common_config(table).data
    assert (own.source, own.name) == ("tfds", "cifar10")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("at.betta=3", "did you mean at.beta=...?"),
        (
            "at.beta",
            "must be KEY=VALUE with a config key, got 'at.beta': did you mean at.beta=...?",
        ),
        ("at.beta=much", "at.beta expects a value of type float, got 'much'"),
        ("batch_size=2.5", "batch_size expects a value of type int, got '2.5'"),
        ("epochs=7", "use --epochs"),
        ("teacher.model=F", "choose rows with --rows"),
        ("data.mirror=no", "data.mirror expects a value of type bool, got 'no'"),
        ("optimizer.drop_epochs=3", "expects a value of type tuple, got '3'"),
        ("seed=3", "use --seeds"),
        ("data.allow_changes=True", "the same images, got 'data.allow_changes=True': leave it out"),
        ("student=wrn_16_1", "choose rows with --rows"),
    ],
)
def test_changes_of_a_bad_change_raises(change, message):
    with pytest.raises(UserError) as error:
        changes.parse(change)
    assert message in str(error.value)


def test_choose_rows_of_labels_only_keeps_the_chosen_teachers():
    table = registry.TABLES["cifar10_activation"]()
    chosen = registry.choose_rows(table, ["wrn_16_1-none", "wrn_16_1-wrn_40_1-at"])
    assert [row.pair for row in chosen] == ["wrn_16_1 <- wrn_40_1"] * 2
    assert len(registry.choose_rows(table, ["wrn_16_1-none"])) == 2


def test_choose_rows_by_label():
    table = registry.TABLES["digits"]()
    chosen = registry.choose_rows(table, ["none", "at*"])
    assert [row.label for row in chosen] == ["none", "at", "at+kd"]


def test_choose_rows_of_an_unknown_row_names_five_and_the_nearest():
    table = registry.TABLES["cifar10_activation"]()
    with pytest.raises(UserError, match="and 14 more.*did you mean wrn_16_1-wrn_16_2-at"):
        registry.choose_rows(table, ["wrn_16_1-wrn_16_2-att"])


def test_shard_divides_students_and_repeats_the_teacher():
    specs = specs_of("digits", seeds=3)
    parts = [sharding.shard(specs, f"{index}/3", 1) for index in (1, 2, 3)]
    (teacher,) = [spec for spec in specs if spec.row is None]
    students = [spec.name for part in parts for spec in part if spec is not teacher]
    assert sorted(students) == sorted(spec.name for spec in specs if spec is not teacher)
    assert all(part[0] is teacher for part in parts)


def four_rows(specs):
    """Runs of four methods, without the teacher."""
    methods = ("none", "at", "kd", "at+kd")
    return [spec for spec in specs[1:] if spec.config.method in methods]


def test_groups_share_one_order_of_images():
    students = four_rows(specs_of("digits", seeds=2))
    by_seed = sharding.groups(students, 4)
    assert [{spec.seed for spec in group} for group in by_seed] == [{0}, {1}]
    assert [len(group) for group in sharding.groups(students, 3)] == [2, 2, 2, 2]
    for spec in students:
        spec.config.data.order_seed = 0
    students[0].config.data.pad += 1  # students of one program see the same images
    assert [len(group) for group in sharding.groups(students, 8)] == [1, 7]
    students[0].config.data.pad -= 1
    (one,) = sharding.groups(students, 8)
    assert len(one) == 8


def test_resumable_groups_of_different_progress_are_split(tmp_path):
    students = four_rows(specs_of("digits", out=tmp_path))
    none, at, kd, at_kd = students
    for spec, steps in ((none, (4, 8)), (at, (4, 8, 12)), (kd, ()), (at_kd, ())):
        for step in steps:
            (spec.workdir / "checkpoints" / str(step)).mkdir(parents=True)
    # One checkpoint apart, as after a kill, is close enough. Runs that have not begun form a group.
    assert sharding.resumable_groups([none, at], 4) == [[none, at]]
    assert sharding.resumable_groups(students, 4) == [[kd, at_kd], [none], [at]]
