"""Checkpoints are restored exactly, and damaged ones are skipped with a warning."""

import pathlib
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from at_jax import checkpoint, models
from at_jax.errors import UserError
from at_jax.training.files.checkpoints import FOLDER, Checkpoints

NAMES = ("params", "batch_stats")


@pytest.fixture(scope="module")
def network():
    module = models.build("wrn_10_0.25")
    return module, jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))


def save(checkpoints, step, variables, error, name="wrn_10_0.25"):
    trees = {key: jax.tree.map(lambda x: x + step, variables[key]) for key in NAMES}
    trees["training"] = {"opt_state": {}, "modules": {}}
    description = {
        "name": name, "num_classes": 10, "dtype": "float32", "image_shape": [16, 16, 3],
    }  # fmt: skip
    checkpoints.save(step, trees, {"model": description}, error)


@pytest.fixture
def run(tmp_path, network):
    with Checkpoints(tmp_path) as checkpoints:
        for step, error in ((1, 50.0), (2, 10.0), (3, 30.0), (4, None), (5, 40.0)):
            save(checkpoints, step, network[1], error)
    return tmp_path


def flip_bits(folder: pathlib.Path) -> None:
    """Flip a bit of each KiB of the largest file: where Orbax puts the arrays in it depends on timing."""
    largest = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    for place in range(512, len(content), 1024):
        content[place] ^= 4
    largest.write_bytes(bytes(content))


def test_checkpoints_keep_the_latest_two_and_the_best(run):
    with Checkpoints(run) as checkpoints:
        assert checkpoints.steps == [2, 4, 5]
        assert checkpoints.best(NAMES).step == 2
        assert checkpoints.latest(NAMES).step == 5


def test_load_returns_module_and_variables(run, network):
    module, variables = checkpoint.load(run)
    assert module == network[0]
    chex.assert_trees_all_equal(variables, jax.tree.map(lambda x: x + 5, network[1]))
    _, best = checkpoint.load(run, which="best")
    chex.assert_trees_all_equal(best, jax.tree.map(lambda x: x + 2, network[1]))


def test_flipped_bits_are_skipped(run):
    flip_bits(run / FOLDER / "5" / "params")
    with (
        Checkpoints(run) as checkpoints,
        pytest.warns(UserWarning, match=r"5 is damaged \(.*older one"),
    ):
        assert checkpoints.latest(NAMES).step == 4


def test_arrays_with_other_checksums_are_skipped(run):
    shutil.rmtree(run / FOLDER / "5" / "params")
    shutil.copytree(run / FOLDER / "4" / "params", run / FOLDER / "5" / "params")
    with (
        Checkpoints(run) as checkpoints,
        pytest.warns(UserWarning, match=r"5 is damaged \(checksums differ in params.*older one"),
    ):
        assert checkpoints.latest(NAMES).step == 4


def test_missing_file_and_empty_folder_are_skipped(run):
    (run / FOLDER / "5" / "meta" / "metadata").unlink()
    (run / FOLDER / "9").mkdir()
    with Checkpoints(run) as checkpoints, pytest.warns(UserWarning, match="is damaged"):
        assert checkpoints.latest(NAMES).step == 4
    with Checkpoints(run) as checkpoints:
        checkpoints.set_aside_after(4, "damaged")
        assert checkpoints.steps == [2, 4]
    aside = {path.name for path in (run / FOLDER).iterdir()}
    assert {"damaged-5", "damaged-9"} <= aside
    with Checkpoints(run) as checkpoints:
        assert checkpoints.steps == [2, 4]
        assert checkpoints.latest(NAMES).step == 4


def test_changed_metadata_is_skipped(run):
    path = run / FOLDER / "5" / "meta" / "metadata"
    text = path.read_text()
    assert '"num_classes": 10' in text
    path.write_text(text.replace('"num_classes": 10', '"num_classes": 11'))
    with (
        Checkpoints(run) as checkpoints,
        pytest.warns(UserWarning, match="checksums differ in meta"),
    ):
        assert checkpoints.latest(NAMES).step == 4


def test_only_damaged_checkpoints_raise(run):
    for step in (2, 4, 5):
        flip_bits(run / FOLDER / str(step) / "params")
    with (
        pytest.warns(UserWarning),
        pytest.raises(UserError, match="all checkpoints .* are damaged"),
    ):
        checkpoint.load(run)


def test_step_saved_again_is_replaced(run, network):
    with Checkpoints(run) as checkpoints:
        save(checkpoints, 4, network[1], 1.0)
        checkpoints.wait()
        assert checkpoints.best(NAMES).step == 4


def test_network_without_statistics_is_loaded(tmp_path):
    module = models.build("nin_thin")
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1, {**variables, "batch_stats": {}}, 1.0, "nin_thin")
    module, loaded = checkpoint.load(tmp_path)
    assert set(loaded) == {"params"}
    logits = module.apply(loaded, jnp.zeros((1, 16, 16, 3)))
    assert np.isfinite(logits).all()


def test_load_with_bad_input_raises(tmp_path, run, network):
    with pytest.raises(UserError, match="holds no checkpoints: give the workdir of a run"):
        checkpoint.load(tmp_path / "nothing")
    with pytest.raises(UserError, match="which must be 'latest' or 'best', got 'first'"):
        checkpoint.load(run, which="first")
    (tmp_path / "empty" / FOLDER).mkdir(parents=True)
    with pytest.raises(UserError, match="no checkpoint yet"):
        checkpoint.load(tmp_path / "empty")
    with Checkpoints(tmp_path / "own") as checkpoints:
        save(checkpoints, 1, network[1], 1.0, name="")
    with pytest.raises(UserError, match=r"user-defined module .*: pass it again with --module="):
        checkpoint.load(tmp_path / "own")
    module, _ = checkpoint.load(tmp_path / "own", module=network[0])
    assert module is network[0]
