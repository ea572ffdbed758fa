"""What does not fit together is said before anything compiles, and nothing is written."""

import contextlib
import shutil

import pytest
import small_run
from own_modules import Dropping, Normalised, Tapped, Untapped

from at_jax import checkpoint, experiment, inputs, loop


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
    dataset = inputs.load_data(config)
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
        loop.train_and_evaluate(small_run.with_teacher(finished), tmp_path, teacher=teacher)
    with pytest.raises(ValueError, match="give one teacher, and a method"):
        loop.train_and_evaluate(small_run.config(method="none"), tmp_path, teacher=teacher)


def test_a_teacher_s_variables_are_those_of_its_module(finished, tmp_path):
    module, variables = checkpoint.load(finished[0] / "teacher")
    other = module.clone(width=0.25)
    with pytest.raises(ValueError, match="variables are not those of WideResNet: .* should be"):
        loop.train_and_evaluate(small_run.config(), tmp_path / "run", teacher=(other, variables))
    nine = module.clone(num_classes=9)
    with pytest.raises(ValueError, match="student gives 10 logits, the teacher 9"):
        loop.train_and_evaluate(small_run.config(), tmp_path / "run", teacher=(nine, variables))
    assert not (tmp_path / "run").exists()


def test_a_workdir_keeps_to_the_size_of_its_network(finished, tmp_path):
    config = small_run.with_teacher(finished, method="kd", epochs=1)
    result = loop.train_and_evaluate(config, tmp_path, student=Tapped(features=4))
    with pytest.raises(ValueError, match="holds a run of another Tapped: .* choose another"):
        loop.train_and_evaluate(config, tmp_path, student=Tapped(features=8))
    assert result["parameters"] == 90  # 3*3*1*4 + 4 + 4*10 + 10


def test_metrics_cut_short_are_not_taken_for_a_result(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines()[0] + "\n")
    with pytest.raises(ValueError, match="lacks the last epoch of a finished run"):
        loop.train_and_evaluate(small_run.config(), tmp_path / "run")


def test_a_run_that_goes_on_is_no_finished_teacher(finished, tmp_path):
    config = small_run.with_teacher(finished, epochs=1)
    loop.train_and_evaluate(config, tmp_path)
    longer = small_run.with_teacher(finished, epochs=2, optimizer__learning_rate=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("at_jax.trainer.interruptible", _at_once)
        with pytest.raises(loop.Interrupted):
            loop.train_and_evaluate(longer, tmp_path)
    with pytest.raises(ValueError, match="has not come to its end"):
        experiment.load_teacher(config, tmp_path)


@contextlib.contextmanager
def _at_once():
    yield lambda: True
