"""Runs with pretrained networks: a file as teacher, a file or a run as start, frozen modules."""

import dataclasses
import json
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_run
import tiny

from at_jax import checkpoint, data, freezing, loop, models
from at_jax.errors import UserError
from at_jax.models import pretrained
from at_jax.training import description, export, subruns
from at_jax.training.components import initialization
from at_jax.training.components.arguments import Arguments
from at_jax.training.components.teacher_images import Normalization

CLASSES, NAMES, FROZEN = 12, "abcdefghijkl", ("conv0", "group1")
NORMALIZED = {"teacher__mean": (120.0, 110.0, 100.0), "teacher__std": (60.0, 60.0, 60.0)}


def pictures(names=NAMES, seed=0):
    """40 color images of 8x8 pixels, of more than ten classes."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    y = np.arange(40) % CLASSES
    return data.from_arrays(x, y, x[:20], y[:20], class_names=list(names))


def saved(path, name, classes, seed):
    """Write the weights of a network as a file of PyTorch; return its variables."""
    module = models.build(name, classes)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    variables = tiny.filled(shapes, seed)
    statistics = jax.tree.map(lambda x: x + 0.25, variables["batch_stats"])
    variables |= {"batch_stats": statistics}
    path.write_bytes(pretrained.dumps(pretrained.state_dict(variables, module)))
    return variables


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of a teacher with 7 classes and of a student with 5, and the student's variables."""
    folder = tmp_path_factory.mktemp("weights")
    saved(folder / "teacher.safetensors", "wrn_10_0.5", 7, seed=1)
    variables = saved(folder / "student.safetensors", "wrn_10_0.25", 5, seed=2)
    return folder / "teacher.safetensors", folder / "student.safetensors", variables


def config(files, **changes):
    given = {
        "data__train_examples": 0,
        "teacher__model": "wrn_10_0.5",
        "teacher__weights": str(files[0]),
        "teacher__image_size": 12,
        "init__weights": str(files[1]),
        "init__freeze": FROZEN,
        **NORMALIZED,
    }
    return small_run.config(**given | changes)


@pytest.fixture(scope="module")
def trained(files, compiled_once, tmp_path_factory):
    """Workdir of two epochs, started again after the first, and the lines of the first start."""
    workdir, lines = tmp_path_factory.mktemp("pretrained") / "run", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(description, "log", lines.append)
        loop.train_and_evaluate(config(files, epochs=1), workdir, dataset=pictures())
        text = "\n".join(lines)
        loop.train_and_evaluate(config(files), workdir, dataset=pictures())
    return workdir, text


def test_run_from_files_says_what_it_starts_from(files, trained):
    text = trained[1]
    assert f"init: {files[1]}, with a new classifier: 5 classes in the file and 12 in" in text
    assert "frozen: conv0, group1 (" in text
    assert "different classes (7 classes in the teacher and 12 in the data)" in text
    assert not (trained[0] / "teacher").exists()
    result = json.loads((trained[0] / "result.json").read_text())
    assert result["teacher_test_error"] is None


def test_more_than_ten_classes_have_a_top5_error(files, trained):
    result = json.loads((trained[0] / "result.json").read_text())
    line = small_run.lines_of(trained[0])[-1]
    for split in ("train", "test"):
        assert 0 <= line[f"{split}_top5_error"] <= line[f"{split}_error"]
    assert result["test_top5_error"] == line["test_top5_error"] > 0
    found = loop.evaluate(config(files), trained[0], dataset=pictures())
    assert found["test_top5_error"] == pytest.approx(result["test_top5_error"])
    assert set(found) == {
        f"{best}test_{name}" for best in ("", "best_") for name in ("error", "top5_error")
    }


def test_frozen_modules_are_those_of_the_file_and_the_others_are_trained(files, trained):
    _, found = checkpoint.load(trained[0])
    for kind in ("params", "batch_stats"):
        for name, leaves in found[kind].items():
            if freezing.is_frozen((name,), FROZEN):
                chex.assert_trees_all_equal(leaves, files[2][kind][name])
            elif kind == "params" and name.startswith("group"):
                # A few steps move the weights a little: they are still near those of the file.
                before, after = files[2][kind][name]["conv1"], leaves["conv1"]
                assert 0 < tiny.largest_deviation(after, before) < 0.9, name
    assert found["params"]["classifier"]["kernel"].shape[-1] == CLASSES


@pytest.mark.slow
def test_run_with_frozen_modules_resumes_exactly(files, trained, tmp_path):
    loop.train_and_evaluate(config(files), tmp_path / "run", dataset=pictures())
    assert small_run.lines_of(tmp_path / "run") == small_run.lines_of(trained[0])
    chex.assert_trees_all_equal(
        checkpoint.load(tmp_path / "run")[1], checkpoint.load(trained[0])[1]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init__weights": "other.safetensors"}, "started from different weights than init"),
        ({"init__weights": ""}, "another config .*init.weights"),
        ({"init__freeze": ("conv0",)}, "another config .*init.freeze"),
        ({"teacher__weights": "other_teacher.safetensors"}, "started with another teacher"),
        ({"teacher__image_size": 10}, "another config .*teacher.image_size"),
    ],
)
def test_finished_run_is_not_continued_with_other_weights(files, trained, changes, message):
    folder = files[0].parent
    if "other" in (place := "".join(v for k, v in changes.items() if k.endswith("weights"))):
        name = "wrn_10_0.5" if "teacher" in place else "wrn_10_0.25"
        saved(folder / place, name, 7, seed=3)
        changes = {key: str(folder / place) for key in changes}
    with pytest.raises(UserError, match=message):
        loop.train_and_evaluate(config(files, **changes), trained[0], dataset=pictures())


def test_comparison_without_a_teacher_has_no_weights_of_one(files):
    given = config(files, compare=("none", "kd"))
    found = {m: c for m, c, _ in subruns.compared(given, pathlib.Path("run"), Arguments())}
    assert list(found) == ["none", "kd"]
    assert [each.teacher.weights for each in found.values()] == ["", str(files[0])]
    assert all(each.init.weights == str(files[1]) for each in found.values())
    assert all(each.teacher.checkpoint == "" for each in found.values())


def test_moved_files_are_the_same_weights(files, trained, tmp_path):
    moved = [path.rename(tmp_path / path.name) for path in files[:2]]
    try:
        found = config(files, teacher__weights=str(moved[0]), init__weights=str(moved[1]))
        loop.train_and_evaluate(found, trained[0], dataset=pictures())
    finally:
        for path, place in zip(moved, files, strict=False):
            path.rename(place)


def test_student_starts_from_a_run_and_keeps_the_classifier_of_the_same_classes(trained):
    student = models.build("wrn_10_0.25", CLASSES)
    _, variables = checkpoint.load(trained[0])
    kept = initialization.load(str(trained[0]), student, pictures())
    chex.assert_trees_all_equal(kept.variables, jax.device_get(variables))
    other = initialization.load(str(trained[0]), student, pictures("abdcefghijkl"))
    assert "class 2 is 'c' in the run and 'd' in the data" in other.note
    assert "classifier" not in other.variables["params"]
    assert kept.fingerprint != other.fingerprint
    assert "--config.data.mean=" not in kept.note
    darker = dataclasses.replace(pictures(), mean=(90.0, 90.0, 90.0))
    assert (
        "another normalization: --config.data.mean="
        in initialization.load(str(trained[0]), student, darker).note
    )
    # A file of the same network says the same.
    file = trained[0].parent / "exported.safetensors"
    file.write_bytes(export.to_safetensors(trained[0]))
    again = initialization.load(str(file), student, pictures())
    assert again.fingerprint == kept.fingerprint and again.note == str(file)
    moved = initialization.load(str(file), student, pictures("abdcefghijkl"))
    assert "class 2 is 'c' in the file and 'd' in the data" in moved.note
    assert "--config.data.mean=" in initialization.load(str(file), student, darker).note
    message = r"init.weights='.*' are not those of WideResNet: .*give weights of the same network"
    with pytest.raises(UserError, match=message):
        initialization.load(str(trained[0]), models.build("wrn_16_0.25", CLASSES), pictures())


def test_teacher_from_an_exported_file_has_its_classes_and_normalization(trained, tmp_path):
    file = tmp_path / "teacher.safetensors"
    file.write_bytes(export.to_safetensors(trained[0]))
    given = {"teacher__weights": str(file), "teacher__model": "wrn_10_0.25", "method": "kd"}
    given |= {
        "teacher__image_size": 0,
        "teacher__mean": (),
        "teacher__std": (),
        "init__weights": "",
    }
    described = checkpoint.open_run(trained[0])[2]
    teacher = initialization.load_teacher(str(file), "wrn_10_0.25", "float32")
    assert teacher.trained_with == Normalization.of(described)
    for names, changes, message in (
        ("abdcefghijkl", {}, "class 2 is 'c' in the teacher and 'd' in the data"),
        (
            NAMES,
            {"teacher__mean": (9.0,) * 3, "teacher__std": (9.0,) * 3},
            "the teacher was trained w",
        ),
    ):
        with pytest.raises(UserError, match=message):
            changed = config((None, None), **given | {"init__freeze": ()} | changes)
            loop.train_and_evaluate(changed, tmp_path / "run", dataset=pictures(names))
    assert not (tmp_path / "run").exists()


def test_weights_without_a_description_have_the_normalization_of_their_kind(files):
    usual = Normalization((125.3, 123.0, 113.9), (63.0, 62.1, 66.7))  # of the authors' code
    teacher = initialization.load_teacher(str(files[0]), "wrn_10_0.5", "float32")
    assert teacher.description is None and teacher.trained_with.is_close(usual)
    student = models.build("wrn_10_0.25", CLASSES)
    note = initialization.load(str(files[1]), student, pictures()).note
    assert f"trained with another normalization: {teacher.trained_with.as_keys('data')}" in note
    alike = dataclasses.replace(pictures(), mean=usual.mean, std=usual.std)
    assert "normalization" not in initialization.load(str(files[1]), student, alike).note


def test_teacher_of_a_run_sees_the_images_of_its_training(finished, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(description, "log", lines.append)
    changed = small_run.config(
        epochs=1,
        method="kd",
        teacher__checkpoint=str(finished[0] / "teacher"),
        data__mean=(9.0,),
        data__std=(30.0,),
    )
    found = loop.train_and_evaluate(changed, tmp_path / "run")
    alone = json.loads((finished[0] / "teacher" / "result.json").read_text())
    assert found["teacher_test_error"] == pytest.approx(alone["test_error"])
    mean = round(checkpoint.open_run(finished[0] / "teacher")[2]["mean"][0], 2)
    assert f"images of 16x16, normalized with mean ({mean},)" in "\n".join(lines)
