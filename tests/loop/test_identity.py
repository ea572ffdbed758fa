"""Runs, data and teachers are recognized by what they are, not by where they are."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import small_run
from own_modules import Tapped
from PIL import Image

from at_jax import checkpoint, data, loop
from at_jax.errors import UserError
from at_jax.training import description
from at_jax.training.files import identity


def pictures(names="abc", images=60, seed=0):
    """Random images with three classes; `names` in another order permutes the labels."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 255, (images, 16, 16, 1)).astype(np.uint8)
    y = np.arange(images) % 3
    return data.from_arrays(x, y, x[:20], y[:20], class_names=list(names))


def configured(**changes):
    given = {"method": "none", "data__train_examples": 0, "epochs": 1, "optimizer__drop_epochs": ()}
    return small_run.config(**given | changes)


@pytest.fixture(scope="module")
def trained(compiled_once, tmp_path_factory):
    """Workdir and result of a run on :func:`pictures`."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    return workdir, train(workdir)


def train(workdir, dataset=None, **changes):
    return loop.train_and_evaluate(
        configured(**changes), workdir, student=Tapped(classes=3), dataset=dataset or pictures()
    )


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the run at another place."""
    shutil.copytree(trained[0], tmp_path / "moved")
    return tmp_path / "moved"


def test_run_resumes_where_it_was_moved_and_with_equal_data(trained, copy):
    renamed = dataclasses.replace(pictures(), name="other name")
    assert train(copy, renamed) == trained[1]
    stored = json.loads((copy / "config.json").read_text())["identity"]
    assert stored["data"]["class_names"] == ["a", "b", "c"]
    assert stored["data"]["train"]["images"] == 60 and len(stored["run"]) == 32


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (pictures("bac"), "class 0 is 'a' in the run and 'b' in the data: restore"),
        (pictures("abcd"), "3 classes in the run and 4 in the data: class 3 is 'd' in the data"),
        (pictures(images=90), "60 train images there, 90 now"),
        (pictures(seed=1), "names, labels or pixels of its train images differ"),
    ],
)
def test_resume_with_other_data_is_refused(trained, copy, dataset, message):
    before = (copy / "config.json").read_bytes()
    with pytest.raises(UserError, match=message):
        train(copy, dataset, epochs=2)
    assert (copy / "config.json").read_bytes() == before
    assert len(small_run.lines_of(copy)) == 1


def test_other_images_are_accepted_if_a_key_allows_them(trained, copy, monkeypatch):
    said = []
    monkeypatch.setattr("at_jax.training.files.identity.log", said.append)
    result = train(copy, pictures(seed=1), epochs=2, data__allow_changes=True)
    assert result["epochs"] == 2 and len(small_run.lines_of(copy)) == 2
    assert said == ["The images of arrays have changed: epochs are counted with the new ones."]
    # They are the run's images now.
    assert train(copy, pictures(seed=1), epochs=2) == result
    with pytest.raises(UserError, match="class 0 is 'a'"):
        train(copy, pictures("bac"), epochs=2, data__allow_changes=True)


def test_other_images_with_another_number_of_steps_are_refused(trained, copy):
    with pytest.raises(UserError, match="has 3 steps, got 4: restore the number of training"):
        train(copy, pictures(images=90), epochs=2, data__allow_changes=True)
    assert train(copy) == trained[1]  # nothing has changed


def test_evaluation_refuses_other_classes_and_notes_other_images(trained, monkeypatch):
    said = []
    monkeypatch.setattr(
        "at_jax.training.files.identity.log", lambda line, is_note: said.append(line)
    )
    given = {"student": Tapped(classes=3)}
    with pytest.raises(UserError, match="class 0 is 'a' in the run and 'c' in the data"):
        loop.evaluate(configured(), trained[0], dataset=pictures("cba"), **given)
    errors = loop.evaluate(configured(), trained[0], dataset=pictures(), **given)
    assert errors["test_error"] == pytest.approx(trained[1]["test_error"]) and not said
    others = dataclasses.replace(pictures(seed=1), notes=("how they were chosen",))
    loop.evaluate(configured(), trained[0], dataset=others, **given)
    difference = "note: the test images differ from the run's (20 there, 20 here)"
    assert said == [difference, "note: how they were chosen"]


def test_runs_of_a_table_have_the_same_data(trained, copy, tmp_path):
    def check():
        identity.check_same_data((str(w), identity.of_data(w)) for w in (trained[0], copy))

    check()
    path = copy / "config.json"
    stored = json.loads(path.read_text())
    stored["identity"]["data"]["train"] |= {"images": 61}
    path.write_text(json.dumps(stored))
    with pytest.raises(UserError, match=r"got 60 \+ 20 images in .* and 61 \+ 20 in .*moved"):
        check()
    stored["identity"]["data"]["class_names"][1] = "x"
    path.write_text(json.dumps(stored))
    with pytest.raises(
        UserError, match="got class 1 is 'b' in .* and 'x' in .*moved: give the same data"
    ):
        check()
    del stored["identity"]
    path.write_text(json.dumps(stored))
    check()


def test_checkpoints_of_another_run_are_refused(trained, copy, tmp_path):
    other = tmp_path / "other"
    train(other, seed=1)
    shutil.rmtree(copy / "checkpoints")
    shutil.copytree(other / "checkpoints", copy / "checkpoints")
    with pytest.raises(UserError, match="checkpoints of this workdir are those of another run"):
        train(copy, epochs=2)
    with pytest.raises(UserError, match="restore the files of one run"):
        checkpoint.load(copy, module=Tapped(classes=3))
    # A run of an older version has no ID.
    stored = json.loads((copy / "config.json").read_text())
    del stored["identity"]
    (copy / "config.json").write_text(json.dumps(stored))
    assert checkpoint.load(copy, module=Tapped(classes=3))


def test_teacher_with_other_classes_is_refused_only_where_it_matters(
    trained, tmp_path, monkeypatch
):
    said = []
    monkeypatch.setattr(description, "log", said.append)
    given = {"teacher__checkpoint": str(trained[0])}
    call = {"student": Tapped(classes=3), "dataset": pictures("bac"), "module": Tapped(classes=3)}
    with pytest.raises(UserError, match="for kd, .* class 0 is 'a' in the teacher and 'b' in"):
        loop.train_and_evaluate(configured(method="kd", **given), tmp_path / "kd", **call)
    assert not (tmp_path / "kd").exists()
    result = loop.train_and_evaluate(configured(method="at", **given), tmp_path / "at", **call)
    assert result["teacher_test_error"] is None
    assert any("the teacher has different classes (class 0 is 'a' in the" in line for line in said)


def test_teacher_may_move_and_must_be_the_same(trained, copy, tmp_path):
    workdir, call = tmp_path / "run", {"student": Tapped(classes=3), "dataset": pictures()}

    def start(teacher, **changes):
        config = configured(method="at", teacher__checkpoint=str(teacher), **changes)
        return loop.train_and_evaluate(config, workdir, module=Tapped(classes=3), **call)

    result = start(trained[0])
    assert start(copy) == result
    with pytest.raises(UserError, match=r"teacher.checkpoint: '.*' there, '' now"):
        start("")
    other = tmp_path / "other"
    train(other, seed=1)
    with pytest.raises(UserError, match="started with another teacher, got one with other weights"):
        start(other, epochs=2)
    # So must one that is passed.
    module, variables = checkpoint.load(other, module=Tapped(classes=3))
    passed = tmp_path / "passed"
    given = {**call, "teacher": (module, variables)}
    loop.train_and_evaluate(configured(method="at"), passed, **given)
    given["teacher"] = checkpoint.load(trained[0], module=Tapped(classes=3))
    with pytest.raises(UserError, match="started with another teacher"):
        loop.train_and_evaluate(configured(method="at", epochs=2), passed, **given)


def test_folder_of_images_may_move_and_must_be_the_same(tmp_path, compiled_once):
    for name, level in (("b", 40), ("c", 200)):
        for part in ("train", "test"):
            (tmp_path / "here" / part / name).mkdir(parents=True)
            for i in range(20 if part == "train" else 2):
                pixels = np.full((16, 16, 3), level + i, np.uint8)
                Image.fromarray(pixels).save(tmp_path / "here" / part / name / f"{i}.png")

    def start(place, epochs=1):
        changes = {"data__source": "folder", "data__data_dir": str(tmp_path / place)}
        config = configured(epochs=epochs, **changes)
        return loop.train_and_evaluate(config, tmp_path / "run", student=Tapped(classes=2))

    result = start("here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert start("there") == result and start("./there/../there") == result
    # At other places: this process keeps the data set that it has read at one.
    shutil.copytree(tmp_path / "here", tmp_path / "more")
    shutil.copy(
        tmp_path / "here" / "train" / "b" / "0.png", tmp_path / "more" / "train" / "b" / "x.png"
    )
    with pytest.raises(UserError, match="40 train images there, 41 now"):
        start("more", epochs=2)
    shutil.copytree(tmp_path / "here", tmp_path / "renamed")
    for part in ("train", "test"):  # the order of the classes changes, and with it every label
        (tmp_path / "renamed" / part / "b").rename(tmp_path / "renamed" / part / "z")
    with pytest.raises(UserError, match="class 0 is 'b' in the run and 'c' in the data"):
        start("renamed", epochs=2)
    assert start("here") == result
