"""ResNet weights of PyTorch: equal activations, and errors that name what does not fit."""

import os
import sys

import chex
import flax.linen as nn
import jax
import numpy as np
import pytest
import safetensors.numpy
from parity import networks
from parity.cases import FOLDER, relative

from at_jax import intermediates, models
from at_jax.errors import UserError
from at_jax.models import pretrained

CLASSES = 10


@pytest.fixture(scope="module")
def state_dict():
    generated = networks.generated(networks.resnet_shapes(18, CLASSES))
    # A counter of PyTorch that is not used.
    return generated | {"bn1.num_batches_tracked": np.zeros((), np.int64)}


@pytest.mark.parametrize("depth", [18, 50])
def test_convert_gives_the_activations_of_torch(depth):
    state_dict = networks.generated(networks.resnet_shapes(depth, CLASSES))
    module = models.build(f"resnet_{depth}", num_classes=CLASSES)
    with np.load(FOLDER / "models.npz") as file:
        arrays = dict(file)

    @jax.jit
    def forward(variables, images):
        return module.apply(variables, images, mutable=["intermediates"])

    variables = pretrained.convert(state_dict, module).variables
    logits, mutated = forward(variables, arrays["resnet/images"])
    assert relative(logits, arrays[f"resnet_{depth}/logits"]) <= 1e-4
    taps = intermediates.collect(mutated)
    assert list(taps) == ["stage1", "stage2", "stage3", "stage4"]
    for name, value in taps.items():
        stored = {key: arrays[f"resnet_{depth}/{name}/{key}"] for key in ("map", "slice")}
        value = np.asarray(value)
        assert relative(np.mean(value**2, axis=-1), stored["map"]) <= 1e-4, name
        assert relative(value[:1, :, :, :4], stored["slice"]) <= 1e-4, name


def test_state_dict_of_parameters_alone_raises_user_error(state_dict):
    module = models.build("resnet_18", num_classes=CLASSES)
    variables = pretrained.convert(state_dict, module).variables
    with pytest.raises(
        UserError, match="must have the collection 'params', got .*: pass {'params'"
    ):
        pretrained.state_dict(variables["params"], module)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: {"params": v["params"]}, "missing batch_stats/bn/mean"),
        (lambda v: jax.tree.map(lambda x: np.stack([x, x]), v), r"with .* of shape \(2, "),
        (lambda v: {**v, "params": {**v["params"], "more": np.ones(3)}}, "unexpected params/more"),
    ],
)
def test_state_dict_of_other_variables_raises_user_error(change, message):
    module = models.build("wrn_10_1")
    variables = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), variables)
    assert len(pretrained.state_dict(variables, module)) == 39
    with pytest.raises(UserError, match=f"do not fit WRN-10-1 with 10 classes: .*{message}"):
        pretrained.state_dict(change(variables), module)
    with pytest.raises(UserError, match=r"do not fit WRN-16-2 .* and \d+ more"):
        pretrained.state_dict(variables, models.build("wrn_16_2"))


@pytest.mark.parametrize(
    ("given", "key", "message"),
    [
        (None, None, "must be a dict of names and arrays, got NoneType"),
        ({"conv1.weight": [1.0]}, None, "got the entry 'conv1.weight'"),
        ({3: np.ones(3)}, None, "got the entry 3"),
        ({}, 0, r"key must be a PRNG key, got 0: pass jax.random.key\(0\)"),
    ],
)
def test_convert_of_wrong_arguments_raises_user_error(given, key, message):
    with pytest.raises(UserError, match=message):
        pretrained.convert(given, models.build("resnet_18"), key=key)


def test_load_of_a_saved_file_equals_convert(state_dict, tmp_path):
    module = models.build("resnet_18", num_classes=CLASSES)
    safetensors.numpy.save_file(state_dict, tmp_path / "resnet18.safetensors")
    variables = pretrained.load(tmp_path / "resnet18.safetensors", module).variables
    chex.assert_trees_all_equal(variables, pretrained.convert(state_dict, module).variables)
    params, stats = variables["params"], variables["batch_stats"]
    kernel = state_dict["layer2.0.downsample.0.weight"]  # (128, 64, 1, 1)
    assert params["stage2_block0"]["shortcut_conv"]["kernel"].shape == (1, 1, 64, 128)
    np.testing.assert_array_equal(
        params["stage2_block0"]["shortcut_conv"]["kernel"][0, 0], kernel[:, :, 0, 0].T
    )
    np.testing.assert_array_equal(
        stats["stage4_block1"]["bn2"]["var"], state_dict["layer4.1.bn2.running_var"]
    )
    np.testing.assert_array_equal(params["classifier"]["kernel"], state_dict["fc.weight"].T)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_removed(tmp_path, prefix):
    given = {
        f"{prefix}fc.weight": np.ones(2, np.float32),
        f"{prefix}fc.bias": np.zeros(2, np.float32),
    }
    safetensors.numpy.save_file(given, tmp_path / "a.safetensors")
    assert set(pretrained.read(tmp_path / "a.safetensors")) == {"fc.weight", "fc.bias"}


def test_state_dict_contains_weights_alone(state_dict):
    module = models.build("resnet_18", num_classes=CLASSES)
    variables = pretrained.convert(state_dict, module).variables
    sown = {"intermediates": {"stage1": (np.ones(2),)}}
    found = pretrained.state_dict({**variables, **sown}, module)
    assert found.keys() == state_dict.keys() - {"bn1.num_batches_tracked"}


@pytest.mark.parametrize("depth", [34, 101])
def test_convert_of_each_depth_uses_every_array(depth):
    shapes = networks.resnet_shapes(depth, CLASSES)
    # Zeros without memory: only names and shapes matter here.
    zeros = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    variables = pretrained.convert(
        zeros, models.build(f"resnet_{depth}", num_classes=CLASSES)
    ).variables
    sizes = sorted(leaf.size for leaf in jax.tree.leaves(variables))
    assert sizes == sorted(array.size for array in zeros.values())


def test_convert_of_half_precision_gives_float32(state_dict):
    module = models.build("resnet_18", num_classes=CLASSES)
    halves = {name: value.astype(np.float16) for name, value in state_dict.items()}
    variables = pretrained.convert(halves, module).variables
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


def test_convert_of_other_names_raises_user_error_with_them(state_dict):
    module = models.build("resnet_18", num_classes=CLASSES)
    broken = state_dict | {"head.weight": np.zeros((1, 1), np.float32)}
    del broken["layer3.1.bn2.running_mean"]
    message = "missing layer3.1.bn2.running_mean; unexpected head.weight: give the weights of"
    with pytest.raises(UserError, match=message):
        pretrained.convert(broken, module)


def test_convert_of_names_with_a_prefix_raises_user_error_with_it(state_dict):
    # As Lightning saves a network that is the attribute `model`.
    module = models.build("resnet_18", num_classes=CLASSES)
    prefixed = {f"model.{name}": array for name, array in state_dict.items()}
    with pytest.raises(
        UserError, match=r"unexpected .*: remove 'model\.' at the start of its names$"
    ):
        pretrained.convert(prefixed, module)


class OwnNet(nn.Module):
    """A network with a kernel of rank 3."""

    num_classes: int = 2

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Conv(4, (3,), name="stem")(images[:, 0])
        return nn.Dense(self.num_classes, name="classifier")(x.mean(1))


class NoClasses(nn.Module):
    """A network without the field num_classes."""

    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(2, name="classifier")(images.mean((1, 2)))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (OwnNet(), r"rank 1, 2 or 4, got params/stem/kernel of shape \(3, 3, 4\)"),
        (NoClasses(), "must have a field num_classes, got NoClasses without it"),
    ],
)
def test_network_of_namings_that_cannot_be_converted_raises_user_error(
    module, message, monkeypatch
):
    naming = pretrained.Naming(lambda path: ".".join(path))
    entry = pretrained.Family(
        lambda module: "own", (naming,), (32, 32, 3), (0,) * 3, (1,) * 3, "stem"
    )
    monkeypatch.setitem(pretrained.NAMINGS, type(module), entry)
    with pytest.raises(UserError, match=message):
        pretrained.convert({}, module)


def test_convert_of_other_classes_raises_user_error_with_their_number(state_dict):
    with pytest.raises(UserError, match=r"set the number of classes to 10$") as error:
        pretrained.convert(state_dict, models.build("resnet_18", num_classes=1000))
    assert "fc.weight of shape (10, 512) instead of (1000, 512)" in str(error.value)


def test_convert_of_another_depth_names_five_arrays_and_a_count(state_dict):
    with pytest.raises(UserError, match="does not fit ResNet-34 with 10") as error:
        pretrained.convert(state_dict, models.build("resnet_34", num_classes=CLASSES))
    # Blocks 2 of layer1, 2 and 3 of layer2, 2 to 5 of layer3, 2 of layer4: 2 convolutions and 2 norms of
    # 4 arrays each, 10 arrays per block.
    assert error.value.args[0].count("layer") == 5 and "and 75 more" in str(error.value)


def test_convert_of_another_depth_and_classes_names_both(state_dict):
    with pytest.raises(UserError, match=r"classes to 10; give the weights of this network, or"):
        pretrained.convert(state_dict, models.build("resnet_50", num_classes=1000))


def test_load_of_a_damaged_file_raises_user_error(state_dict, tmp_path):
    path = tmp_path / "cut.safetensors"
    safetensors.numpy.save_file(state_dict, path)
    path.write_bytes(path.read_bytes()[:10_000])
    module = models.build("resnet_18", num_classes=CLASSES)
    with pytest.raises(
        UserError, match=r"cut.safetensors cannot be read as weights: it is not a complete"
    ):
        pretrained.load(path, module)


def test_load_of_a_missing_file_raises(tmp_path):
    with pytest.raises(UserError, match="there is no such file: give the path"):
        pretrained.load(tmp_path / "none.safetensors", models.build("resnet_18"))


def test_load_without_safetensors_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(UserError, match=r'pip install "at_jax\[pretrained\]"'):
        pretrained.load(tmp_path / "a.safetensors", models.build("resnet_18"))


@pytest.mark.parametrize(
    ("name", "value", "dtype", "message"),
    [
        (
            "conv1.weight",
            np.nan,
            np.float32,
            r"conv1.weight of the state dict has 1 of 9,408 ",
        ),
        (
            "fc.bias",
            -np.inf,
            np.float16,
            r"has 1 of 10 values such as -inf",
        ),
        (
            "layer1.0.conv1.weight",
            1e300,
            np.float64,
            r"such as 1e\+300, expected finite numbers of f",
        ),
        ("bn1.running_var", -0.5, np.float32, r"such as -0.5, expected variances of at least 0"),
        (
            "bn1.running_mean",
            1,
            np.int32,
            r"bn1.running_mean of the state dict has dtype int32, exp",
        ),
        ("bn1.weight", 1, np.int64, r"bn1.weight of the state dict has dtype int64"),
        (
            "layer4.1.bn2.bias",
            True,
            np.bool_,
            r"layer4.1.bn2.bias of the state dict has dtype bool",
        ),
    ],
)
def test_convert_of_values_that_no_trained_network_has_raises(
    name, value, dtype, message, state_dict
):
    changed = state_dict[name].astype(dtype)
    changed.flat[0] = value
    with pytest.raises(UserError, match=message) as error:
        pretrained.convert(
            state_dict | {name: changed}, models.build("resnet_18", num_classes=CLASSES)
        )
    assert "\n" not in str(error.value)


def test_load_of_a_directory_raises_user_error(tmp_path):
    with pytest.raises(UserError, match="it is a directory: give the file in it"):
        pretrained.load(tmp_path, models.build("resnet_18"))


def test_load_of_a_pipe_is_refused_without_reading_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(UserError, match="it is not a regular file: give the path of one"):
        pretrained.load(tmp_path / "pipe.pth", models.build("wrn_10_1", 10))
