"""A resume that is refused changes nothing, and its message has a command that works."""

import shutil

import pytest
import small_run

from at_jax import loop
from at_jax.errors import UserError
from at_jax.training import subruns

# The teacher is trained for as many epochs as the student.
USUAL = {"teacher__epochs": 0, "compare": ("kd",)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, compiled_once):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    loop.train_and_evaluate(small_run.config(**USUAL), workdir)
    return workdir


@pytest.fixture
def workdir(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def files(workdir):
    return {
        path.relative_to(workdir): path.read_bytes()
        for path in workdir.rglob("*")
        if path.is_file() and not path.name.startswith("run.lock")
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"epochs": 3},
            r"--config.teacher.epochs=2 --config.teacher.drop_epochs=\"\(1,\)\" keep that teacher",
        ),
        (
            {"epochs": 3, "teacher__epochs": 2},
            r"run/teacher holds a run with another config \(teacher.drop_epochs: \[1\] there, \[\] now",
        ),
        ({"teacher__model": "wrn_10_0.25"}, "teacher.model: 'wrn_10_0.5' there"),
        # Read by the comparison run alone.
        ({"kd__temperature": 8.0}, r"run/kd holds a run with another config \(kd.temperature"),
    ],
)
def test_refused_resume_changes_no_file(workdir, changes, message):
    before = files(workdir)
    with pytest.raises(UserError, match=message):
        loop.train_and_evaluate(small_run.config(**{**USUAL, **changes}), workdir)
    assert files(workdir) == before


def test_recommended_keys_continue_a_run_with_its_teacher(workdir):
    longer = {"epochs": 3, "teacher__epochs": 2, "teacher__drop_epochs": (1,)}
    result = loop.train_and_evaluate(small_run.config(**{**USUAL, **longer}), workdir)
    assert result["epochs"] == 3 and len(small_run.lines_of(workdir)) == 3
    assert len(small_run.lines_of(workdir / "teacher")) == 2
    # The teacher's epochs are now those of a key; without it the message recommends them.
    again = small_run.config(**{**USUAL, "epochs": 4})
    with pytest.raises(UserError, match=r"--config.teacher.epochs=2 --config.teacher.drop_epochs"):
        loop.train_and_evaluate(again, workdir)


@pytest.mark.slow  # trains two runs; a fast test moves and replaces the teacher
def test_another_teacher_is_refused_with_its_place_and_changes_no_file(finished, tmp_path):
    workdir, other = tmp_path / "run", tmp_path / "other"
    given = {"teacher__checkpoint": str(finished / "teacher")}
    loop.train_and_evaluate(small_run.config(**given), workdir)
    loop.train_and_evaluate(small_run.config(method="none", student="wrn_10_0.5", seed=1), other)
    before = files(workdir)
    with pytest.raises(UserError, match=r"other weights \(teacher.checkpoint='.*/other'\): pass"):
        loop.train_and_evaluate(small_run.config(teacher__checkpoint=str(other)), workdir)
    assert files(workdir) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"teacher__train_examples": 10},
            r"the run of the teacher \(teacher.\*\): batch_size: expected",
        ),
        (
            {"epochs": 4, "teacher__epochs": 1, "optimizer__warmup_epochs": 1.5},
            r"the run of the teacher \(teacher.\*\): the learning-rate warm-up must be shorter",
        ),
    ],
)
def test_error_of_the_run_of_the_teacher_names_it(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        loop.train_and_evaluate(small_run.config(**changes), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"epochs": 3, "teacher__epochs": 2}, "does not drop in its 2 epochs"),
        ({"teacher__epochs": 0, "teacher__drop_epochs": (1,)}, "not used without teacher.epochs"),
        ({"teacher__epochs": 2, "teacher__drop_epochs": (1,)}, ""),
    ],
)
def test_note_about_the_drops_of_the_teacher(changes, note, monkeypatch):
    said = []
    monkeypatch.setattr(subruns, "log", lambda text, **_: said.append(text))
    subruns._note_drops(small_run.config(**changes))
    assert len(said) == bool(note) and all(note in text for text in said)
