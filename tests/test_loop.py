"""Whole runs on the digits, in this process, on the four virtual devices of conftest.py."""

import hashlib
import json
import pathlib
import re
import shutil

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_run

from at_jax import checkpoint, experiment, intermediates, loop, resume, trainer


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory):
    """The runs here share most of their programs: compile each once in a session."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("cache")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of the student, its teacher trained first: (workdir, result, what was printed)."""
    workdir = tmp_path_factory.mktemp("run")
    said = []
    with pytest.MonkeyPatch.context() as patch:
        for module in (loop, resume):
            patch.setattr(module, "say", said.append)
        result = loop.train_and_evaluate(small_run.config(), workdir)
    return workdir, result, said


def with_teacher(finished, **changes):
    return small_run.config(teacher__checkpoint=str(finished[0] / "teacher"), **changes)


def lines_of(workdir: pathlib.Path) -> list[dict]:
    """metrics.jsonl without what differs from run to run."""
    lines = [json.loads(text) for text in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def digest(folder: pathlib.Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def test_what_a_run_leaves(finished):
    workdir, result, _ = finished
    names = {path.name for path in workdir.iterdir()}
    assert {"config.json", "metrics.jsonl", "result.json", "checkpoints", "teacher"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    lines = [json.loads(text) for text in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert [line["step"] for line in lines] == [3, 6]
    assert set(lines[0]) == {
        "epoch", "step", "loss", "loss/cross_entropy", "loss/attention", "learning_rate", "beta",
        "train_error", "test_error", "images_per_second",
    }  # fmt: skip
    # The rate drops at the start of epoch 1 (from 0): the first line has the first rate.
    assert [line["learning_rate"] for line in lines] == pytest.approx([0.1, 0.02])
    for line in lines:
        total = line["loss/cross_entropy"] + line["beta"] * line["loss/attention"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
    stored = json.loads((workdir / "result.json").read_text())
    assert stored == result
    assert result["test_error"] == lines[-1]["test_error"]
    assert result["best_test_error"] == min(line["test_error"] for line in lines)
    assert 0 <= result["teacher_test_error"] <= 100
    assert {"parameters", "epochs", "seed", "images_per_second", "wall_seconds", "device"} <= set(
        result
    )


def test_what_a_run_says(finished):
    workdir, result, said = finished
    text = "\n".join(said)
    assert "the teacher, wrn_10_0.5, is trained first" in text
    assert re.search(r"group3_block0\s+WideResNetBlock\s+4x4x16", text)
    assert "transfer: student group3 4x4x16 <- teacher group3" in text
    teacher, student, where = said[-3:]
    assert teacher == f"teacher error  {result['teacher_test_error']:.2f} %"
    assert f"{result['test_error']:.2f} %" in student
    assert where == f"everything is in {workdir}"


def test_a_run_opens_again_and_measures_the_same(finished):
    workdir, result, _ = finished
    errors = loop.evaluate(small_run.config(), workdir)
    assert errors == {k: pytest.approx(result[k]) for k in ("test_error", "best_test_error")}


def test_a_finished_run_is_not_trained_again(finished):
    workdir, result, _ = finished
    before = lines_of(workdir)
    again = loop.train_and_evaluate(small_run.config(), workdir)
    assert again == result
    assert lines_of(workdir) == before


def test_the_teacher_is_frozen(finished, tmp_path):
    before = digest(finished[0] / "teacher" / "checkpoints")
    loop.train_and_evaluate(with_teacher(finished), tmp_path)
    assert digest(finished[0] / "teacher" / "checkpoints") == before
    assert not (tmp_path / "teacher").exists()
    # And the same teacher gives the same student.
    assert lines_of(tmp_path) == lines_of(finished[0])


@pytest.mark.parametrize("steps_before", [1, 3, 4])
def test_a_resumed_run_is_the_uninterrupted_one(finished, tmp_path, monkeypatch, steps_before):
    """Interrupted within an epoch, at its end, and within the next one."""
    asked = iter([False] * steps_before + [True] * 100)

    class Once:  # in place of signals, which test_end_to_end.py sends
        def __enter__(self):
            return lambda: next(asked)

        def __exit__(self, *_):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "interruptible", Once)
        with pytest.raises(loop.Interrupted, match="Stopped after step .* of 6, saved in"):
            loop.train_and_evaluate(with_teacher(finished), tmp_path)
    result = loop.train_and_evaluate(with_teacher(finished), tmp_path)
    assert lines_of(tmp_path) == lines_of(finished[0])
    same = {k: v for k, v in result.items() if k not in ("images_per_second", "wall_seconds")}
    assert same.items() <= finished[1].items()
    for which in ("latest", "best"):
        ours, theirs = (checkpoint.load(w, which=which)[1] for w in (tmp_path, finished[0]))
        chex.assert_trees_all_equal(ours, theirs)


def test_more_epochs_go_on_from_the_end(finished, tmp_path):
    loop.train_and_evaluate(with_teacher(finished), tmp_path)
    result = loop.train_and_evaluate(with_teacher(finished, epochs=3), tmp_path)
    assert result["epochs"] == 3
    assert [line["epoch"] for line in lines_of(tmp_path)] == [1, 2, 3]
    assert lines_of(tmp_path)[:2] == lines_of(finished[0])


@pytest.mark.parametrize("method", ["none", "kd", "at+kd", "f_actt"])
def test_every_method_trains(finished, tmp_path, method):
    config = small_run.config if method == "none" else lambda **c: with_teacher(finished, **c)
    result = loop.train_and_evaluate(config(method=method, epochs=1), tmp_path)
    terms = {k for k in lines_of(tmp_path)[0] if k.startswith("loss/")}
    hard = "distillation" if "kd" in method else "cross_entropy"
    soft = {"at+kd": {"loss/attention"}, "f_actt": {"loss/activation"}}.get(method, set())
    assert terms == {f"loss/{hard}"} | soft
    assert (result["teacher_test_error"] is None) == (method == "none")
    assert not (tmp_path / "teacher").exists()


def test_accumulation_and_dispatches_of_several_steps(finished, tmp_path):
    changes = {"accumulation": 5, "runtime__steps_per_dispatch": 2, "dtype": "bfloat16"}
    config = with_teacher(finished, **changes)
    result = loop.train_and_evaluate(config, tmp_path)
    assert 0 <= result["test_error"] <= 100
    assert [line["step"] for line in lines_of(tmp_path)] == [3, 6]  # dispatches of 2 and 1


def test_steps_per_dispatch_change_nothing(finished, tmp_path):
    loop.train_and_evaluate(with_teacher(finished, runtime__steps_per_dispatch=3), tmp_path)
    for ours, theirs in zip(lines_of(tmp_path), lines_of(finished[0]), strict=True):
        for key, value in theirs.items():
            assert ours[key] == pytest.approx(value, rel=1e-3, abs=2.0 if "error" in key else 1e-3)


def test_a_loss_that_explodes_names_step_and_term(finished, tmp_path):
    config = with_teacher(finished, optimizer__learning_rate=1e12, epochs=4)
    with pytest.raises(loop.NonFinite, match=r"step \d+: .*(loss|state).* is not finite; .* lower"):
        loop.train_and_evaluate(config, tmp_path)


def test_the_last_good_checkpoint_stays(finished, tmp_path):
    loop.train_and_evaluate(with_teacher(finished, epochs=1), tmp_path)
    good = checkpoint.load(tmp_path)[1]
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["optimizer"]["learning_rate"] = 1e30  # a change that claim() would forbid
    (tmp_path / "config.json").write_text(json.dumps(stored))
    config = with_teacher(finished, optimizer__learning_rate=1e30, epochs=4)
    with pytest.raises(loop.NonFinite):
        loop.train_and_evaluate(config, tmp_path)
    chex.assert_trees_all_equal(checkpoint.load(tmp_path)[1], good)


class Untapped(nn.Module):
    """Somebody's network without a tap."""

    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(10)(images.reshape(images.shape[0], -1))


class Tapped(nn.Module):
    """Somebody's network with a tap and without batch normalisation."""

    classes: int = 10

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), strides=(4, 4))(images))
        intermediates.tap(self, "only", x)
        return nn.Dense(self.classes)(jnp.mean(x, axis=(1, 2)))


def test_a_module_of_ones_own(finished, tmp_path):
    config = with_teacher(finished, transfer__points=("only<-group3",), epochs=1)
    result = loop.train_and_evaluate(config, tmp_path, student=Tapped())
    assert result["parameters"] == 3 * 3 * 1 * 4 + 4 + 4 * 10 + 10
    assert result["student"] == "Tapped"
    assert loop.evaluate(config, tmp_path, student=Tapped())["test_error"] == result["test_error"]
    assert "loss/attention" in lines_of(tmp_path)[0]
    module, variables = checkpoint.load(tmp_path, module=Tapped())
    assert module.apply(variables, jnp.zeros((1, 16, 16, 1))).shape == (1, 10)


def test_a_workdir_keeps_to_its_network(finished, tmp_path):
    config = with_teacher(finished, method="kd", epochs=1)
    loop.train_and_evaluate(config, tmp_path, student=Tapped())
    with pytest.raises(ValueError, match=r"holds a run of Tapped, got wrn_10_0.25 to train"):
        loop.train_and_evaluate(config, tmp_path)


def test_a_teacher_of_ones_own(finished, tmp_path):
    teacher = checkpoint.load(finished[0] / "teacher")
    loop.train_and_evaluate(small_run.config(), tmp_path, teacher=teacher)
    assert lines_of(tmp_path) == lines_of(finished[0])


class Normalised(nn.Module):
    """Somebody's network that normalises each device's part of a batch alone."""

    @nn.compact
    def __call__(self, images, train):
        x = nn.BatchNorm(use_running_average=not train)(images)
        intermediates.tap(self, "only", x)
        return nn.Dense(10)(jnp.mean(x, axis=(1, 2)))


class Dropping(nn.Module):
    """Somebody's network that asks for random numbers."""

    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(10)(
            nn.Dropout(0.5, deterministic=False)(images.reshape(images.shape[0], -1))
        )


@pytest.mark.parametrize(
    ("student", "changes", "message"),
    [
        (Untapped(), {}, "must tap the same number of transfer points, got none and group1"),
        (Tapped(), {}, "must tap the same number of transfer points, got only and group1"),
        (Tapped(9), {}, "student must give 10 logits for digits, got shape"),
        (Normalised(), {"method": "kd"}, "no field bn_axis_name, so on 4 devices each would"),
        (Dropping(), {"method": "kd"}, "asks for random numbers in its forward pass"),
        (None, {"student": "wrn_11_1"}, r"must be 6n\+4"),
        (None, {"student": "vgg_16"}, "unknown network 'vgg_16'"),
        (None, {"student": "resnet_18"}, "needs images of at least 32x32"),
        (None, {"transfer__points": ("group9<-group1",)}, "student has no transfer point 'group9'"),
        (None, {"transfer__points": ("group1<-group9",)}, "teacher has no transfer point 'group9'"),
        (None, {"transfer__points": ("group1",)}, "each must be 'student<-teacher', got 'group1'"),
        (None, {"at__kind": "channel"}, "needs equal channel counts, got student 4 and teacher 8"),
        (None, {"method": "f_actt", "transfer__points": ("group1<-group2",)}, "one shape"),
        (
            None,
            {"method": "f_actt", "transfer__points": ("group1<-group1", "group1<-group1")},
            "name each student point once",
        ),
        (None, {"data__pad": 16}, "pad: expected 0 to 15"),
        (None, {"batch_size": 80}, "batch_size: expected 1 to 60"),
        (None, {"batch_size": 18, "runtime__devices": 4}, "must be a multiple .*use 16 or 20"),
        (None, {"runtime__devices": 9}, r"runtime.devices must be 0 \(automatic\) to 4"),
        (None, {"teacher__checkpoint": "", "teacher__model": "wrn_9_1"}, r"must be 6n\+4"),
        (None, {"teacher__checkpoint": "", "teacher__train_examples": 5}, "digits"),
        (
            None,
            {"teacher__checkpoint": "", "teacher__train_examples": 19},
            "batch_size: expected 1",
        ),
        (None, {"data__mean": (1.0, 2.0), "data__std": (1.0, 1.0)}, "one number a channel, 1 for"),
        (None, {"data__mean": (9.0,), "data__std": (1.0,)}, "normalised alike: the teacher's mean"),
        (None, {"data__image_size": 20}, "must see the same images: here they are"),
        (None, {"teacher__checkpoint": "/nowhere"}, "/nowhere holds no checkpoints"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(
    finished, tmp_path, student, changes, message
):
    changes = {"teacher__checkpoint": str(finished[0] / "teacher"), **changes}
    with pytest.raises(ValueError, match=message):
        loop.train_and_evaluate(small_run.config(**changes), tmp_path / "run", student=student)
    assert not (tmp_path / "run").exists()


def test_no_teacher_is_trained_for_a_student_that_cannot_follow_it(tmp_path):
    with pytest.raises(ValueError, match="needs equal channel counts"):
        loop.train_and_evaluate(small_run.config(at__kind="channel"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_classes_must_agree(finished, tmp_path):
    teacher = experiment.load_teacher(small_run.config(), finished[0] / "teacher")
    teacher.description["num_classes"] = 7
    config = small_run.config()
    dataset = experiment.load_data(config)
    student = experiment.build(config, config.student, dataset.num_classes)
    with pytest.raises(ValueError, match="digits has 10, the teacher was trained on 7"):
        experiment.assemble(config, dataset, student, config.student, teacher)


def test_a_teacher_must_have_come_to_its_end(finished, tmp_path):
    shutil.copytree(finished[0] / "teacher", tmp_path / "teacher")
    (tmp_path / "teacher" / "result.json").unlink()
    config = small_run.config(teacher__checkpoint=str(tmp_path / "teacher"))
    with pytest.raises(ValueError, match="has not come to its end: start it again"):
        loop.train_and_evaluate(config, tmp_path / "run")


def test_one_teacher_only(finished, tmp_path):
    teacher = checkpoint.load(finished[0] / "teacher")
    with pytest.raises(ValueError, match="give one teacher"):
        loop.train_and_evaluate(with_teacher(finished), tmp_path, teacher=teacher)
    with pytest.raises(ValueError, match="give one teacher, and a method"):
        loop.train_and_evaluate(small_run.config(method="none"), tmp_path, teacher=teacher)


def test_a_run_that_was_stopped_with_its_teacher_s_last_step_stops(tmp_path, monkeypatch):
    class AtTheEnd:  # of the teacher's three steps: asked before each, and once after
        def __enter__(self):
            answers = iter([False, False, False])
            return lambda: next(answers, True)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(trainer, "interruptible", AtTheEnd)
    with pytest.raises(loop.Interrupted, match="Stopped after step 3 of 3"):
        loop.train_and_evaluate(small_run.config(), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_evaluate_measures_the_test_set_of_a_run_that_held_a_part_out(finished, tmp_path):
    config = small_run.config(method="none", epochs=1, data__validation_examples=100)
    loop.train_and_evaluate(config, tmp_path)
    error = loop.evaluate(config, tmp_path)["test_error"]
    assert error * 355 / 100 == pytest.approx(round(error * 355 / 100))
    assert error * 3.55 != pytest.approx(0)


def test_the_validation_part_is_measured_in_place_of_the_test_set(finished, tmp_path):
    config = small_run.config(method="none", epochs=1, data__validation_examples=100)
    dataset = experiment.load_data(config)
    assert (len(dataset.test), len(dataset.train)) == (100, 60)
    result = loop.train_and_evaluate(config, tmp_path)
    assert result["evaluated_on"] == "validation"
    # 100 images: errors are whole percents.
    assert result["test_error"] == pytest.approx(round(result["test_error"]))


def test_evaluation_counts_every_image_once_whatever_the_batch(finished):
    workdir, result, _ = finished
    for batch_size in (4, 20, 400):
        config = small_run.config(batch_size=batch_size)
        assert loop.evaluate(config, workdir)["test_error"] == pytest.approx(result["test_error"])
    assert np.isclose(result["test_error"] * 355 / 100, round(result["test_error"] * 355 / 100))
