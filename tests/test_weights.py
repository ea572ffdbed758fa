"""PyTorch's ResNet weights in ours: the same numbers, and errors that say what does not fit."""

import sys

import chex
import jax
import numpy as np
import pytest
import safetensors.numpy
from parity import networks
from parity.cases import FOLDER, relative

from at_jax import intermediates, models, weights

CLASSES = 10


@pytest.fixture(scope="module")
def state_dict():
    generated = networks.generated(networks.resnet_shapes(18, CLASSES))
    # What PyTorch counts and nothing uses.
    return generated | {"bn1.num_batches_tracked": np.zeros((), np.int64)}


@pytest.mark.parametrize("depth", [18, 50])
def test_same_activations_as_torch(depth):
    state_dict = networks.generated(networks.resnet_shapes(depth, CLASSES))
    module = models.build(f"resnet_{depth}", num_classes=CLASSES)
    with np.load(FOLDER / "models.npz") as file:
        arrays = dict(file)

    @jax.jit
    def forward(variables, images):
        return module.apply(variables, images, mutable=["intermediates"])

    variables = weights.convert(state_dict, module)
    logits, mutated = forward(variables, arrays["resnet/images"])
    assert relative(logits, arrays[f"resnet_{depth}/logits"]) <= 1e-4
    taps = intermediates.collect(mutated)
    assert list(taps) == ["stage1", "stage2", "stage3", "stage4"]
    for name, value in taps.items():
        stored = {key: arrays[f"resnet_{depth}/{name}/{key}"] for key in ("map", "slice")}
        value = np.asarray(value)
        assert relative(np.mean(value**2, axis=-1), stored["map"]) <= 1e-4, name
        assert relative(value[:1, :, :, :4], stored["slice"]) <= 1e-4, name


def test_file_round_trip(state_dict, tmp_path):
    module = models.build("resnet_18", num_classes=CLASSES)
    safetensors.numpy.save_file(state_dict, tmp_path / "resnet18.safetensors")
    variables = weights.load_resnet(tmp_path / "resnet18.safetensors", module)
    chex.assert_trees_all_equal(variables, weights.convert(state_dict, module))
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


# The parameters that torchvision documents for 1000 classes, running statistics not counted.
PARAMETERS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160}


@pytest.mark.parametrize("depth", PARAMETERS)
def test_takes_every_depth(depth):
    shapes = networks.resnet_shapes(depth, 1000)
    # Zeros without memory: only names and shapes matter here.
    zeros = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    variables = weights.convert(zeros, models.build(f"resnet_{depth}", num_classes=1000))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == PARAMETERS[depth]


def test_half_precision_is_widened(state_dict):
    module = models.build("resnet_18", num_classes=CLASSES)
    halves = {name: value.astype(np.float16) for name, value in state_dict.items()}
    variables = weights.convert(halves, module)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


def test_names_what_is_missing_and_unexpected(state_dict):
    module = models.build("resnet_18", num_classes=CLASSES)
    broken = state_dict | {"head.weight": np.zeros((1, 1), np.float32)}
    del broken["layer3.1.bn2.running_mean"]
    with pytest.raises(ValueError) as error:
        weights.convert(broken, module)
    assert "missing layer3.1.bn2.running_mean\n" in str(error.value)
    assert "unexpected head.weight\n" in str(error.value)


def test_other_number_of_classes(state_dict):
    with pytest.raises(ValueError, match=r"build the network with num_classes=10$") as error:
        weights.convert(state_dict, models.build("resnet_18", num_classes=1000))
    assert "fc.weight has shape (10, 512), expected (1000, 512)" in str(error.value)


def test_other_depth(state_dict):
    with pytest.raises(ValueError, match="pass the state dict of resnet34"):
        weights.convert(state_dict, models.build("resnet_34", num_classes=CLASSES))


def test_other_depth_and_classes_are_both_named(state_dict):
    with pytest.raises(ValueError, match=r"num_classes=10; pass the state dict of resnet50, or"):
        weights.convert(state_dict, models.build("resnet_50", num_classes=1000))


def test_damaged_file(state_dict, tmp_path):
    path = tmp_path / "cut.safetensors"
    safetensors.numpy.save_file(state_dict, path)
    path.write_bytes(path.read_bytes()[:10_000])
    module = models.build("resnet_18", num_classes=CLASSES)
    with pytest.raises(ValueError, match=r"cut.safetensors is not a complete safetensors file"):
        weights.load_resnet(path, module)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        weights.load_resnet(tmp_path / "none.safetensors", models.build("resnet_18"))


def test_says_how_to_install_safetensors(monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ModuleNotFoundError, match="pip install safetensors"):
        weights.load_resnet("resnet18.safetensors", models.build("resnet_18"))
