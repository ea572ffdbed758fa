"""The losses and WRN-10-1 against float64 NumPy and against PyTorch.

PyTorch is not needed to run it: make_fixture.py stored its results in losses.npz and models.npz.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from parity import cases, networks

from at_jax import intermediates, models
from benchmarks import reference

TESTS = Path(__file__).parents[1]
CASES = cases.load()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_losses_in_float32_equal_numpy_and_torch(case):
    # Relative to the array's L2 norm; `not <=` because NaN is a failure too.
    errors = case.deviations(np.float32)
    assert not [name for name, error in errors.items() if not error <= 1e-5], errors


def test_losses_in_float64_equal_numpy_and_torch():
    # A separate process: x64 is a switch of the whole process.
    paths = [str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(TESTS / "parity" / "check_float64.py")],
        env=os.environ
        | {"JAX_ENABLE_X64": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_numpy_reference_equals_torch():
    # Neither uses JAX: where they agree, a deviation is an error of the library.
    for case in CASES:
        if "torch" in case.expected:
            pairs = zip(case.expected["numpy"], case.expected["torch"], strict=True)
            assert all(cases.relative(numpy, torch) <= 1e-12 for numpy, torch in pairs), case.name


def test_numpy_reference_by_hand():
    # One position [3, 4], the other [0, 0]: F_sum^2 = (25, 0), normalized (1, 0); the teacher's is
    # (0, 1). Code: ((1-0)^2 + (0-1)^2) / 2 = 1; paper: sqrt(2) / 2.
    a_s = np.array([[[[3.0, 4.0], [0.0, 0.0]]]])
    a_t = np.array([[[[0.0, 0.0], [1.0, 0.0]]]])
    np.testing.assert_allclose(reference.attention_transfer(a_s, a_t), [1.0])
    paper = reference.attention_transfer(a_s, a_t, convention="paper")
    np.testing.assert_allclose(paper, [np.sqrt(0.5)])
    # softmax(0, log 3) = (1/4, 3/4) against (1/2, 1/2): KL(t || s) = log(2 / sqrt 3); T^2 = 4
    # with logits twice as large at T = 2.
    student, teacher = np.array([[0.0, 2 * np.log(3)]]), np.zeros((1, 2))
    value = reference.distillation(student, teacher, np.array([0]), temperature=2.0, alpha=1.0)
    np.testing.assert_allclose(value, [4 * np.log(2 / np.sqrt(3))])


@pytest.fixture(scope="module")
def wide_resnet():
    """Module, variables and PyTorch's results."""
    state_dict = networks.generated(networks.wide_resnet_shapes(10))
    with np.load(cases.FOLDER / "models.npz") as file:
        stored = {
            name.removeprefix("wrn_10_1/"): value
            for name, value in file.items()
            if name.startswith("wrn_10_1/")
        }
    module = models.build("wrn_10_1", num_classes=10)
    variables = jax.tree.map(jnp.asarray, networks.to_flax(state_dict))
    expected = jax.eval_shape(module.init, jax.random.key(0), stored["images"])
    chex.assert_trees_all_equal_shapes_and_dtypes(variables, expected)
    return module, variables, stored


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_wide_resnet_equals_torch(wide_resnet, train):
    module, variables, stored = wide_resnet
    cotangent = jnp.asarray(stored["cotangent"])

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def forward(images):
        mutable = ["intermediates", "batch_stats"]
        logits, mutated = module.apply(variables, images, train=train, mutable=mutable)
        return jnp.sum(logits * cotangent), (logits, mutated)

    gradient, (logits, mutated) = forward(jnp.asarray(stored["images"]))
    results = {"logits": logits, "input_gradient": gradient} | intermediates.collect(mutated)
    mode = "train" if train else "eval"
    errors = {name: cases.relative(r, stored[f"{mode}/{name}"]) for name, r in results.items()}
    assert set(errors) == {"logits", "input_gradient", "group1", "group2", "group3"}
    assert not [name for name, error in errors.items() if not error <= 1e-4], errors


def test_wide_resnet_updates_running_means_as_torch(wide_resnet):
    # Flax's momentum 0.9 is PyTorch's 0.1; the variances differ by definition.
    module, variables, stored = wide_resnet
    _, mutated = module.apply(variables, stored["images"], train=True, mutable=["batch_stats"])
    names = [name for name in networks.wide_resnet_shapes(10) if name.endswith("running_mean")]
    expected = networks.to_flax({name: stored[f"train/{name}"] for name in names})
    moved = traverse_util.flatten_dict(mutated["batch_stats"])
    assert sum(path[-1] == "mean" for path in moved) == len(names)
    for path, mean in traverse_util.flatten_dict(expected["batch_stats"]).items():
        assert cases.relative(moved[path], mean) <= 1e-4, path
