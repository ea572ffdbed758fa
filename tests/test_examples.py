"""The examples run, with reduced settings."""

import importlib

import jax
import pytest

SMALL = {
    "epochs": 1,
    "batch_size": 20,
    "student": "wrn_10_0.25",
    "data.train_examples": 40,
    "teacher.model": "wrn_10_0.25",
    "teacher.epochs": 1,
    "teacher.drop_epochs": (),
    "teacher.train_examples": 40,
    "runtime.compilation_cache": "",
    "runtime.figures": False,
    "optimizer.warmup_epochs": 0.5,
}


def run(name, workdir, **changes):
    return importlib.import_module(f"examples.{name}").main(str(workdir), **SMALL, **changes)


def test_own_loop_reduces_the_attention_term():
    attention = importlib.import_module("examples.own_loop").main(steps=12)
    assert attention[-1] < attention[0] / 2


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.slow  # each trains two runs
@pytest.mark.parametrize(
    "name",
    ["own_term", "own_data", "own_optimizer"],
)
def test_example_trains(tmp_path, name):
    # Without a teacher, where the example is not about one.
    changes = {} if name == "own_term" else {"method": "none"}
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes the dtypes of its counters
        result = run(name, tmp_path, **changes)
    assert 0 <= result["test_error"] <= 100
    assert result["method"] == ("at+similarity" if name == "own_term" else "none")


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.slow  # trains a run
def test_own_logger_writes_its_files(tmp_path):
    result = run("own_logger", tmp_path, method="none")
    assert len((tmp_path / "epochs.csv").read_text().splitlines()) == 2
    assert float((tmp_path / "error.txt").read_text()) == result["test_error"]


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.slow  # trains two runs
def test_own_module_trains_and_is_loaded(tmp_path, capsys):
    result = run("own_module", tmp_path)
    # 3*3*1*16 + 16, 3*3*16*32 + 32, 32*10 + 10
    assert result["parameters"] == 160 + 4640 + 330
    assert "loaded: logits of shape (1, 10)" in capsys.readouterr().err


def test_attention_maps_prints_the_correlations_of_a_run(finished, capsys):
    found = importlib.import_module("examples.attention_maps").main(str(finished[0]), count=3)
    assert list(found) == ["group1", "group2", "group3"]
    assert all(len(values) == 3 and min(values) >= -1 for values in found.values())
    assert "group3" in capsys.readouterr().out
