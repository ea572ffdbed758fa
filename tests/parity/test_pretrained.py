"""Networks with weights of PyTorch's names against what PyTorch computed, see make_pretrained.py."""

import jax
import numpy as np
import pytest
import tiny
from parity import networks
from parity.cases import FOLDER, relative

from at_jax import intermediates, models
from at_jax.models import pretrained

# Name in pretrained.npz: name of the network, shapes of its state dict, bound on the relative distance.
NETWORKS = {
    "wrn_10_2": ("wrn_10_2", networks.reference_shapes(10, 2, 10), 1e-5),
    "wrn_16_1": ("wrn_16_1", networks.reference_shapes(16, 1, 10), 1e-5),
    "resnet_18": ("resnet_18", networks.resnet_shapes(18, 1000), 1e-4),
    "resnet_34": ("resnet_34", networks.resnet_shapes(34, 1000), 1e-4),
    "folded_18": ("resnet_18", networks.folded_resnet_shapes(18, 1000), 1e-4),
    "folded_34": ("resnet_34", networks.folded_resnet_shapes(34, 1000), 1e-4),
    "student_18": ("resnet_18", networks.student_resnet_shapes(1000), 1e-4),
}


@pytest.fixture(scope="module")
def stored():
    with np.load(FOLDER / "pretrained.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def forward():
    """Logits and taps of a network; compiled once for all weights of it."""
    return jax.jit(
        lambda module, variables, images: module.apply(
            variables, images, mutable=["intermediates"]
        ),
        static_argnums=0,
        compiler_options=tiny.QUICK,
    )


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n.startswith("wrn") else pytest.mark.slow) for n in NETWORKS],
)
def test_converted_network_gives_the_activations_of_torch(name, stored, forward):
    model, shapes, bound = NETWORKS[name]
    module = models.build(model, num_classes=len(stored[f"{name}/logits"][0]))
    variables = pretrained.convert(networks.generated(shapes), module).variables
    images = networks.images(32 if name.startswith("wrn") else 224)
    logits, mutated = forward(module, variables, images)
    assert relative(logits, stored[f"{name}/logits"]) <= bound
    taps = intermediates.collect(mutated)
    assert len(taps) == (3 if name.startswith("wrn") else 4)
    for tap, value in taps.items():
        # The norm of a difference is estimated by its products with random directions.
        expected = stored[f"{name}/{tap}/sketch"]
        difference = networks.sketch(tap, np.asarray(value)) - expected
        distance = np.sqrt(np.mean(difference**2)) / stored[f"{name}/{tap}/norm"]
        assert distance <= bound, (tap, distance)


@pytest.mark.parametrize("name", ["wrn_16_1", "resnet_34"])
def test_conversion_back_gives_every_bit(name):
    model, shapes, _ = NETWORKS[name]
    weights = networks.generated(shapes)
    module = models.build(model, num_classes=len(weights["fc.bias"]))
    back = pretrained.state_dict(pretrained.convert(weights, module).variables, module)
    assert back.keys() == weights.keys()
    for key, value in weights.items():
        assert back[key].dtype == np.float32 and back[key].flags.c_contiguous
        np.testing.assert_array_equal(back[key], value)


@pytest.mark.parametrize("name", ["folded_18", "student_18"])
def test_norm_that_a_file_lacks_changes_nothing(name):
    _, shapes, _ = NETWORKS[name]
    weights = networks.generated(shapes)
    variables = pretrained.convert(weights, models.build("resnet_18", num_classes=1000)).variables
    params, stats = variables["params"], variables["batch_stats"]
    # A norm with the bias of the folded convolution, and one of a shortcut: y = x + bias, y = x.
    block, norm = "stage2_block0", "bn1" if name == "folded_18" else "shortcut_bn"
    bias = weights["group1.block0.conv0.bias"] if name == "folded_18" else np.zeros(128)
    np.testing.assert_array_equal(params[block][norm]["bias"], np.float32(bias))
    factor = params[block][norm]["scale"] / np.sqrt(np.float32(1e-5) + stats[block][norm]["var"])
    np.testing.assert_allclose(factor, 1, rtol=2e-7)
    np.testing.assert_array_equal(stats[block][norm]["mean"], 0)
    shortcut = {"folded_18": "conv_dim.weight", "student_18": "convdim"}[name]
    kernel = params[block]["shortcut_conv"]["kernel"]  # (1, 1, 64, 128)
    np.testing.assert_array_equal(kernel[0, 0], weights[f"group1.block0.{shortcut}"][:, :, 0, 0].T)
