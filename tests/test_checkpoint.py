"""Checkpoints: what is written is read, what is damaged is passed over, nothing silently wrong."""

import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from at_jax import checkpoint, models

NAMES = ("params", "batch_stats")


@pytest.fixture(scope="module")
def network():
    module = models.build("wrn_10_0.25")
    return module, jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))


def save(checkpoints, step, variables, error, name="wrn_10_0.25"):
    trees = {key: jax.tree.map(lambda x: x + step, variables[key]) for key in NAMES}
    trees["training"] = {"opt_state": {}, "adapter": {}}
    description = {"name": name, "num_classes": 10, "dtype": "float32"}
    checkpoints.save(step, trees, {"model": description}, error)


@pytest.fixture
def run(tmp_path, network):
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        for step, error in ((1, 50.0), (2, 10.0), (3, 30.0), (4, None), (5, 40.0)):
            save(checkpoints, step, network[1], error)
    return tmp_path


def flip_one_bit(folder: pathlib.Path) -> None:
    largest = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 4
    largest.write_bytes(bytes(content))


def test_keeps_the_latest_two_and_the_best(run):
    with checkpoint.Checkpoints(run) as checkpoints:
        assert checkpoints.steps == [2, 4, 5]
        assert checkpoints.best(NAMES).step == 2
        assert checkpoints.latest(NAMES).step == 5


def test_load_gives_module_and_variables(run, network):
    module, variables = checkpoint.load(run)
    assert module == network[0]
    chex.assert_trees_all_equal(variables, jax.tree.map(lambda x: x + 5, network[1]))
    _, best = checkpoint.load(run, which="best")
    chex.assert_trees_all_equal(best, jax.tree.map(lambda x: x + 2, network[1]))


def test_a_flipped_bit_is_found_and_passed_over(run):
    flip_one_bit(run / checkpoint.FOLDER / "5" / "params")
    with (
        checkpoint.Checkpoints(run) as checkpoints,
        pytest.warns(UserWarning, match=r"5 is damaged \(checksums differ in params.*older one"),
    ):
        assert checkpoints.latest(NAMES).step == 4


def test_a_missing_file_and_an_empty_folder_are_passed_over(run):
    (run / checkpoint.FOLDER / "5" / "meta" / "metadata").unlink()
    (run / checkpoint.FOLDER / "9").mkdir()
    with checkpoint.Checkpoints(run) as checkpoints, pytest.warns(UserWarning, match="is damaged"):
        assert checkpoints.latest(NAMES).step == 4
    with checkpoint.Checkpoints(run) as checkpoints:
        checkpoints.set_aside_after(4, "damaged")
        assert checkpoints.steps == [2, 4]
    aside = {path.name for path in (run / checkpoint.FOLDER).iterdir()}
    assert {"damaged-5", "damaged-9"} <= aside
    with checkpoint.Checkpoints(run) as checkpoints:
        assert checkpoints.steps == [2, 4]
        assert checkpoints.latest(NAMES).step == 4


def test_what_is_saved_beside_the_arrays_is_checked_too(run):
    path = run / checkpoint.FOLDER / "5" / "meta" / "metadata"
    text = path.read_text()
    assert '"num_classes": 10' in text
    path.write_text(text.replace('"num_classes": 10', '"num_classes": 11'))
    with (
        checkpoint.Checkpoints(run) as checkpoints,
        pytest.warns(UserWarning, match="checksums differ in meta"),
    ):
        assert checkpoints.latest(NAMES).step == 4


def test_all_damaged_is_an_error(run):
    for step in (2, 4, 5):
        flip_one_bit(run / checkpoint.FOLDER / str(step) / "params")
    with (
        pytest.warns(UserWarning),
        pytest.raises(ValueError, match="all checkpoints .* are damaged"),
    ):
        checkpoint.load(run)


def test_a_step_saved_again_is_replaced(run, network):
    with checkpoint.Checkpoints(run) as checkpoints:
        save(checkpoints, 4, network[1], 1.0)
        checkpoints.wait()
        assert checkpoints.best(NAMES).step == 4


def test_networks_without_statistics(tmp_path):
    module = models.build("nin_thin")
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1, {**variables, "batch_stats": {}}, 1.0, "nin_thin")
    module, loaded = checkpoint.load(tmp_path)
    assert set(loaded) == {"params"}
    logits = module.apply(loaded, jnp.zeros((1, 16, 16, 3)))
    assert np.isfinite(logits).all()


def test_errors_say_what_to_do(tmp_path, run, network):
    with pytest.raises(ValueError, match="holds no checkpoints: give the workdir of a run"):
        checkpoint.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="which must be 'latest' or 'best', got 'first'"):
        checkpoint.load(run, which="first")
    (tmp_path / "empty" / checkpoint.FOLDER).mkdir(parents=True)
    with pytest.raises(ValueError, match="no checkpoint yet"):
        checkpoint.load(tmp_path / "empty")
    with checkpoint.Checkpoints(tmp_path / "own") as checkpoints:
        save(checkpoints, 1, network[1], 1.0, name="")
    with pytest.raises(ValueError, match=r"module of the user's own: pass it, module="):
        checkpoint.load(tmp_path / "own")
    module, _ = checkpoint.load(tmp_path / "own", module=network[0])
    assert module is network[0]
