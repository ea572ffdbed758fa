"""Networks that are drawn: of runs, before training, pretrained."""

import functools
import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
import tiny
from flax import nnx
from own_modules import Counting, NnxNormalized, Tapped, Untapped

from at_jax import checkpoint, models
from at_jax.errors import UserError
from at_jax.figures import networks, teachers
from at_jax.models import WideResNet
from at_jax.models import pretrained as weights
from at_jax.models.pretrained import namings
from at_jax.training import export, state

DESCRIPTION = {"image_shape": [8, 8, 1], "mean": [0.0], "std": [255.0], "num_classes": 10}


@functools.cache
def initialized(module):
    variables = tiny.jit(module.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    return networks.Network("student", module, variables, DESCRIPTION)


def test_a_run_gives_its_student_and_its_teacher(finished):
    workdir, *_ = finished
    student, teacher = networks.of_run(workdir), teachers.teacher_of(workdir)
    assert (student.title, teacher.title) == ("attention transfer", "teacher")
    assert student.image_shape == teacher.image_shape == (16, 16, 1)
    assert (student.class_name(7), student.model_name) == ("7", "wrn_10_0.25")
    assert teacher.has_classes_of(student)
    assert teachers.teacher_of(workdir / "teacher") is None


@pytest.mark.parametrize(
    "module", [Tapped(), Counting(), nnx.bridge.to_linen(NnxNormalized, follows=True)]
)
def test_before_training_is_the_state_that_training_began_with(module):
    student = networks.Network("student", module, None, {"image_shape": [8, 8, 1]})
    untrained = networks.before_training(student, 5)
    create = tiny.jit(lambda key: state.create(module, {}, optax.sgd(0.1), key, (8, 8, 1), {}))
    began = create(jax.random.key(5))
    chex.assert_trees_all_close(untrained.variables, state.variables_of(began), atol=1e-6)
    assert untrained.title == networks.UNTRAINED


def test_padding_to_a_batch_changes_nothing():
    student = initialized(Tapped())
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    logits, (found,) = student.attention(images)
    padded, (found_padded,) = student.attention(images, batch=20)
    np.testing.assert_allclose(padded, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found_padded["only"], found["only"], rtol=1e-4, atol=1e-5)


def test_attention_gives_several_mappings_and_further_inputs_to_the_module():
    class Scaled(Tapped):
        def __call__(self, images, *, factor, train=False):
            return super().__call__(factor * images, train=train)

    module = Scaled()
    init = functools.partial(module.init, factor=1.0)
    variables = tiny.jit(init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    images = np.full((1, 8, 8, 1), 100, np.uint8)
    mappings = (("sum", 1), ("max", 1))
    once, twice = (
        networks.Network("a", module, variables, DESCRIPTION, inputs=lambda _, f=f: {"factor": f})
        .attention(images, mappings=mappings)[1]
        for f in (jnp.ones(()), jnp.full((), 2.0))
    )  # fmt: skip
    np.testing.assert_allclose(twice[0]["only"], 2 * once[0]["only"], rtol=1e-5)
    assert np.all(once[1]["only"] <= once[0]["only"])


def test_with_points_captures_the_points_that_are_not_tapped():
    found = networks.with_points(initialized(Untapped()), ["layer"])
    assert found.paths == ("layer",)
    assert list(found.attention(np.zeros((1, 8, 8, 1), np.uint8))[1][0]) == ["layer"]
    assert networks.with_points(initialized(Tapped()), ["only"]).paths == ()


def test_classes_are_compared_by_name_where_names_are_known():
    def named(names, count=2):
        return networks.Network("a", None, None, {"class_names": names, "num_classes": count})

    assert named(["cat", "dog"]).has_classes_of(named(["cat", "dog"]))
    assert not named(["cat", "dog"]).has_classes_of(named(["car", "bus"]))
    assert named([]).has_classes_of(named(["cat", "dog"]))
    assert not named([], 3).has_classes_of(named(["cat", "dog"]))


def test_single_device_removes_the_axis_of_batch_statistics():
    assert networks.single_device(WideResNet(10, 1, bn_axis_name="batch")).bn_axis_name is None
    assert networks.single_device(Tapped()) == Tapped()


@pytest.mark.parametrize("content", [None, "{", json.dumps({"method": "at"})])
def test_of_run_without_a_readable_config_raises(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=str(tmp_path)):
        networks.of_run(tmp_path)


def test_teacher_of_a_run_whose_teacher_was_passed_is_none(finished, tmp_path):
    stored = json.loads((finished[0] / "config.json").read_text())
    stored["arguments"] = {"teacher": {"class": "own_modules:Tapped", "fields": {}}}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert teachers.teacher_of(tmp_path) is None


def test_teacher_that_labels_only_does_not_use_is_none(finished, tmp_path):
    stored = json.loads((finished[0] / "config.json").read_text())
    stored["method"], stored["teacher"]["checkpoint"] = "none", str(finished[0] / "teacher")
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert teachers.teacher_of(tmp_path) is None


def test_teacher_of_a_run_that_is_gone_or_another_raises(finished, tmp_path):
    run, teacher = tmp_path / "run", tmp_path / "run" / "teacher"
    shutil.copytree(finished[0], run)
    teacher.rename(tmp_path / "moved")
    with pytest.raises(
        UserError, match="teacher of the run in .* cannot be loaded: .*if it was moved"
    ):
        teachers.teacher_of(run)
    shutil.copytree(run, teacher)  # the student
    with pytest.raises(UserError, match="started with another teacher"):
        teachers.teacher_of(run)


def test_pretrained_loads_a_resnet_from_its_file(tmp_path):
    module = models.build("resnet_18", num_classes=3)
    variables = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    tensors = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        name = weights.family(module).namings[0].name(tuple(key.key for key in path))
        tensors[name] = np.zeros(namings.torch_shape(leaf.shape), np.float32)
    safetensors.numpy.save_file(tensors, tmp_path / "w.safetensors")
    found = networks.pretrained(tmp_path / "w.safetensors", "resnet_18", 3, 64)
    assert found.image_shape == (64, 64, 3) and found.class_name(2) == "class 2"
    assert found.description["mean"][0] == pytest.approx(0.485 * 255)


def test_pretrained_takes_the_description_of_an_exported_file(finished, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(export.to_safetensors(finished[0]))
    found, run = networks.pretrained(path), checkpoint.open_run(finished[0])[2]
    for key in ("name", "num_classes", "class_names", "image_shape", "mean", "std"):
        assert found.description[key] == run[key]
    assert networks.pretrained(path, image_size=32).image_shape == (32, 32, 1)


def test_of_imagenet_has_the_names_and_the_normalization_of_its_training(monkeypatch):
    names = tuple(f"class {index}" for index in range(1000))
    monkeypatch.setattr(networks.imagenet, "class_names", lambda: names)
    monkeypatch.setattr(networks.imagenet, "weights_file", lambda: "w")
    module = models.EfficientNetLite()
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    file = weights.state_dict(tiny.filled(shapes), module)
    monkeypatch.setattr(weights, "read", lambda path: file)
    found = networks.of_imagenet("efficientnet_lite0")
    assert found.module == models.EfficientNetLite() and found.title == "EfficientNet-Lite0"
    assert found.image_shape == (224, 224, 3) and found.class_name(7) == "class 7"
    # TensorFlow's (x - 127) / 128: white is 1, black -127/128.
    black_and_white = np.zeros((1, 224, 224, 3), np.uint8)
    black_and_white[:, :, 112:] = 255
    normalized = np.asarray(found.normalize(black_and_white))[0, 0, :, 0]
    np.testing.assert_allclose(normalized[[0, -1]], [-127 / 128, 1])


def test_pretrained_weights_without_a_description_have_what_is_usual(tmp_path):
    module, path = models.build("wrn_10_0.25", 7), tmp_path / "a.safetensors"
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    path.write_bytes(weights.dumps(weights.state_dict(tiny.filled(shapes), module)))
    found = networks.pretrained(path, "wrn_10_0.25")
    assert (found.image_shape, found.description["num_classes"]) == ((32, 32, 1), 7)
    for name in ("num_classes", "image_size"):
        with pytest.raises(UserError, match=f"--{name} must be within .*, got -4"):
            networks.pretrained(path, "wrn_10_0.25", **{name: -4})


def test_pretrained_weights_that_cannot_be_loaded_raise(tmp_path):
    with pytest.raises(UserError, match="ResNet, WideResNet.*, got NIN: choose one of these"):
        networks.pretrained(tmp_path / "a", "nin_thin", 10, 32)
    with pytest.raises(UserError, match="there is no such file"):
        networks.pretrained(tmp_path / "a", "resnet_18", 10, 32)
