"""Input that does not fit together is reported before anything compiles, and nothing is written."""

import contextlib
import shutil

import own_modules
import pytest
import small_run
from own_modules import Dropping, Normalized, Tapped, Untapped

from at_jax import checkpoint, loop
from at_jax.errors import UserError
from at_jax.training.components import networks


@pytest.mark.parametrize(
    ("student", "changes", "message"),
    [
        (Untapped(), {}, "must tap the same number of transfer points, got none and group1"),
        (Tapped, {}, r"got the class Tapped: pass an instance, Tapped\(\.\.\.\)"),
        (own_modules.NnxNet, {}, r"NNX module NnxNet: wrap it, flax.nnx.bridge.to_linen\(NnxNet"),
        ({"params": {}}, {}, r"got variables: pass \(module, variables\)"),
        (
            own_modules.WithFeatures(),
            {},
            "returned tuple: .* must return logits .* return the logits alone",
        ),
        (own_modules.WithoutTrain(), {}, "takes no argument 'train': .* add `train: bool`"),
        (
            own_modules.Tokens(),
            {"transfer__points": ("only<-group3",)},
            r"student point 'only' must have shape \(B, H, W, C\), got .*: reshape tokens",
        ),
        (
            own_modules.Scanned(),
            {"transfer__points": ("layers/only<-group3",)},
            "nn.scan stacks the taps of its layers; tap after it",
        ),
        (
            own_modules.Twice(),
            {"transfer__points": ("layer<-group3",)},
            "'layer' must be computed once in a forward pass, got 2 calls",
        ),
        (Tapped(), {}, "must tap the same number of transfer points, got only and group1"),
        (Tapped(9), {}, "student must return 10 logits for digits, got shape"),
        (Normalized(), {"method": "kd"}, "no field bn_axis_name, so each of 4 devices"),
        (Dropping(always=True), {"method": "kd"}, "draws random numbers with train=False"),
        (None, {"student": "wrn_11_1"}, r"must be 6n\+4"),
        (None, {"student": "alexnet"}, "unknown network 'alexnet'"),
        (None, {"student": "resnet_18"}, "needs images of at least 32x32"),
        (None, {"transfer__points": ("group9<-group1",)}, "student has no transfer point 'group9'"),
        (None, {"transfer__points": ("group1<-group9",)}, "teacher has no transfer point 'group9'"),
        (None, {"transfer__points": ("group1",)}, "each must be 'student<-teacher', got 'group1'"),
        (None, {"at__kind": "channel"}, "student and teacher channels must be equal, got 4 and 8"),
        (
            None,
            {"method": "f_actt", "transfer__points": ("group1<-group2",)},
            "shapes must be equal",
        ),
        (
            None,
            {"method": "f_actt", "transfer__points": ("group1<-group1", "group1<-group1")},
            "name each student point once",
        ),
        (None, {"data__pad": 16}, "expected a pad of 0 to 15"),
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
        (
            None,
            {"data__mean": (1.0, 2.0), "data__std": (1.0, 1.0)},
            "one number per channel, 1 for",
        ),
        (
            None,
            {"teacher__mean": (9.0,), "teacher__std": (1.0,)},
            r'was trained with --config.teacher.mean="\(.*,\)" .*, got --config.teacher.mean="\(9.0,\)"',
        ),
        (None, {"data__image_size": 20}, "must see the same images: the data are"),
        (
            None,
            {"data__image_size": 20, "teacher__image_size": 24},
            r"the data are \[24, 24, 1\] .*, the teacher was trained on \[16, 16, 1\]",
        ),
        (
            None,
            {"teacher__mean": (1.0, 2.0, 3.0), "teacher__std": (1.0, 1.0, 1.0)},
            "teacher.std must have one number for each of 1 channels",
        ),
        (None, {"teacher__checkpoint": "", "teacher__image_size": 32}, "trained first sees the"),
        (None, {"teacher__checkpoint": "", "teacher__weights": "a.pt"}, "no file 'a.pt'"),
        (None, {"teacher__checkpoint": "", "teacher__weights": "runs"}, "must be a .safetensors"),
        (
            None,
            {"method": "none", "teacher__weights": "a.pt", "teacher__checkpoint": ""},
            "method 'none' uses no teacher, got teacher.weights='a.pt'",
        ),
        (None, {"init__weights": "a.pth"}, "init.weights: there is no file 'a.pth'"),
        (None, {"init__weights": "runs/a"}, "init.weights: there is no run in 'runs/a'"),
        (None, {"init__weights": "."}, "init.weights=.: . holds no checkpoints"),
        (
            None,
            {"init__freeze": ("conv0", "gruop1")},
            "'gruop1' .* bn, classifier, conv0, group1, group2, group3: "
            "choose from these; did you mean 'group1'",
        ),
        (
            None,
            {"init__freeze": ("conv0", "group1", "group2", "group3", "bn", "classifier")},
            "must leave parameters to train",
        ),
        (
            None,
            {"teacher__checkpoint": "/nowhere"},
            "teacher.checkpoint=/nowhere: /nowhere holds no",
        ),
    ],
)
def test_train_with_bad_input_raises_and_writes_nothing(
    finished, tmp_path, student, changes, message
):
    changes = {"teacher__checkpoint": str(finished[0] / "teacher"), **changes}
    with pytest.raises(UserError, match=message):
        loop.train_and_evaluate(small_run.config(**changes), tmp_path / "run", student=student)
    assert not (tmp_path / "run").exists()


def test_train_with_bad_input_trains_no_teacher(tmp_path):
    with pytest.raises(UserError, match="channels must be equal, got 4 and 8"):
        loop.train_and_evaluate(small_run.config(at__kind="channel"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_kd_with_a_teacher_of_other_classes_raises(finished, tmp_path):
    module, variables = checkpoint.load(finished[0] / "teacher")
    nine = module.clone(num_classes=9)
    message = "for kd, .* the same order, got 9 classes in the teacher and 10 in the data"
    with pytest.raises(UserError, match=message):
        config = small_run.config(method="at+kd")
        loop.train_and_evaluate(config, tmp_path / "run", teacher=(nine, variables))
    assert not (tmp_path / "run").exists()


def test_unfinished_teacher_raises(finished, tmp_path):
    shutil.copytree(finished[0] / "teacher", tmp_path / "teacher")
    (tmp_path / "teacher" / "result.json").unlink()
    config = small_run.config(teacher__checkpoint=str(tmp_path / "teacher"))
    with pytest.raises(UserError, match="is not finished: run its command again"):
        loop.train_and_evaluate(config, tmp_path / "run")


def test_second_teacher_raises(finished, tmp_path):
    teacher = checkpoint.load(finished[0] / "teacher")
    with pytest.raises(UserError, match="both teacher= and teacher.checkpoint=.*: pass one"):
        loop.train_and_evaluate(small_run.with_teacher(finished), tmp_path, teacher=teacher)
    with pytest.raises(UserError, match="'none' uses no teacher, got teacher=: leave it out"):
        loop.train_and_evaluate(small_run.config(method="none"), tmp_path, teacher=teacher)


def test_teacher_variables_of_another_module_raise(finished, tmp_path):
    module, variables = checkpoint.load(finished[0] / "teacher")
    other = module.clone(width=0.25)
    with pytest.raises(
        UserError, match="variables of the teacher are not those of WideResNet: .* should be"
    ):
        loop.train_and_evaluate(small_run.config(), tmp_path / "run", teacher=(other, variables))
    with pytest.raises(UserError, match=r"pair \(module, variables\)|got variables: pass"):
        loop.train_and_evaluate(small_run.config(), tmp_path / "run", teacher=(variables, module))
    assert not (tmp_path / "run").exists()


def test_workdir_of_another_student_size_raises(finished, tmp_path):
    config = small_run.with_teacher(finished, method="kd", epochs=1)
    result = loop.train_and_evaluate(config, tmp_path, student=Tapped(features=4))
    with pytest.raises(
        UserError, match=r"another student=, .*Tapped\(features=4\), got .*\(features=8\): pass"
    ):
        loop.train_and_evaluate(config, tmp_path, student=Tapped(features=8))
    assert result["parameters"] == 90  # 3*3*1*4 + 4 + 4*10 + 10


def test_truncated_metrics_are_restored_from_a_checkpoint(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines()[0] + "\n")
    with pytest.warns(UserWarning, match="epochs 2 are read from a checkpoint"):
        result = loop.train_and_evaluate(small_run.config(), tmp_path / "run")
    assert result == finished[1]
    assert metrics.read_text() == (finished[0] / "metrics.jsonl").read_text()


def test_resumed_run_is_no_finished_teacher(finished, tmp_path):
    config = small_run.with_teacher(finished, epochs=1)
    loop.train_and_evaluate(config, tmp_path)
    longer = small_run.with_teacher(finished, epochs=2, optimizer__learning_rate=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("at_jax.training.trainer.interruptible", _at_once)
        with pytest.raises(loop.Interrupted):
            loop.train_and_evaluate(longer, tmp_path)
    with pytest.raises(UserError, match="is not finished"):
        networks.load_teacher(str(tmp_path), "float32")


@contextlib.contextmanager
def _at_once():
    yield lambda: True


def test_initial_weights_of_another_network_name_it(finished, tmp_path):
    changes = {"student": "wrn_10_0.5", "init__weights": str(finished[0])}
    with pytest.raises(UserError, match=r"they are those of wrn_10_0.25; give weights of the same"):
        loop.train_and_evaluate(small_run.config(method="none", **changes), tmp_path)
