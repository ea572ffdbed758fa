"""Networks to look at: opened from runs, recreated, pretrained."""

import json

import chex
import jax
import numpy as np
import optax
import pytest
from own_modules import Tapped

from at_jax import state
from at_jax.figures import networks
from at_jax.models import WideResNet
from at_jax.objective import Objective


def test_a_run_gives_its_student_and_its_teacher(finished):
    workdir, *_ = finished
    student, teacher = networks.of_run(workdir), networks.teacher_of(workdir)
    assert (student.title, teacher.title) == ("attention transfer", "teacher")
    assert student.image_shape == teacher.image_shape == (16, 16, 1)
    assert student.class_name(7) == "7"
    networks.check_images([student, teacher])
    assert networks.teacher_of(workdir / "teacher") is None


def test_the_student_before_training_is_the_one_that_training_began_with():
    module = Tapped()
    student = networks.Network("student", module, None, {"image_shape": [8, 8, 1]})
    untrained = networks.before_training(student, 5)
    key = jax.random.key(5)
    began = state.create(Objective(module), optax.sgd(0.1), key, (8, 8, 1), {})
    chex.assert_trees_all_close(untrained.variables["params"], began.params["student"], atol=1e-6)
    assert untrained.title == networks.UNTRAINED


def test_padding_to_a_batch_changes_nothing(finished):
    student = networks.of_run(finished[0])
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 1), np.uint8)
    logits, looked = student.look(images)
    padded, looked_padded = student.look(images, batch=20)
    np.testing.assert_allclose(padded, logits, rtol=1e-4, atol=1e-5)
    assert looked_padded["group3"].shape == looked["group3"].shape == (3, 4, 4)


def test_points_that_training_compared():
    assert networks.pairs((), ("a", "b"), ("c", "d")) == (("a", "c"), ("b", "d"))
    assert networks.pairs((), ("a", "b"), ("c",)) == ()
    assert networks.pairs(["b<-c"], ("a", "b"), ("c",)) == (("b", "c"),)


def test_networks_of_other_images_cannot_stand_side_by_side(finished):
    student = networks.of_run(finished[0], title="student")
    other = networks.Network("other", None, None, {**student.description, "image_shape": [8, 8, 3]})
    with pytest.raises(
        ValueError, match="other and student must be of the same images and classes"
    ):
        networks.check_images([student, other])


def test_a_user_s_module_is_looked_at_on_one_device():
    assert networks.single_device(WideResNet(10, 1, bn_axis_name="batch")).bn_axis_name is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no run"),
        ("{", "is not readable as a config"),
        (json.dumps({"method": "at"}), "is not readable as a config .*'student'"),
    ],
)
def test_configs_that_cannot_be_read(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        networks.stored_config(tmp_path)


def test_weights_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="--model must be a ResNet for --weights, got 'wrn_10_1'"):
        networks.pretrained(tmp_path / "a", "wrn_10_1", 10, 32)
    with pytest.raises(ValueError, match="--weights: there is no file"):
        networks.pretrained(tmp_path / "a", "resnet_18", 10, 32)
