"""MobileNetV2, the ResNet for small images and VGG against PyTorch.

PyTorch is not needed to run it: make_small_networks.py stored its results in small_networks.npz.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import cases, networks, small_networks

from at_jax import intermediates, models


@pytest.mark.parametrize("name", small_networks.SIZES)
def test_networks_for_small_images_equal_torch(name):
    module = models.build(name, num_classes=small_networks.CLASSES)
    images = jnp.asarray(networks.images(small_networks.SIZES[name]))
    weights = networks.generated(small_networks.shapes(name), f"{name} ", gain=2)
    variables = jax.tree.map(jnp.asarray, networks.to_flax(weights))
    expected = jax.eval_shape(module.init, jax.random.key(0), images)
    chex.assert_trees_all_equal_shapes_and_dtypes(variables, expected)

    @jax.jit
    def forward(images):
        return module.apply(variables, images, mutable=["intermediates"])

    logits, mutated = forward(images)
    found = {"logits": logits}
    for tap, value in intermediates.collect(mutated).items():
        found |= {f"{tap}/map": jnp.mean(value**2, -1), f"{tap}/slice": value[:1, :, :, :4]}
    with np.load(cases.FOLDER / "small_networks.npz") as file:
        stored = {k.removeprefix(f"{name}/"): v for k, v in file.items() if k.startswith(name)}
    errors = {key: cases.relative(found[key], value) for key, value in stored.items()}
    assert errors.keys() == found.keys()
    assert not [key for key, error in errors.items() if not error <= 1e-5], errors
