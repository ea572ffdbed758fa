"""Short versions of the checks of numbers and configurations; the benchmark draws more."""

import jax
import numpy as np
import pytest

from at_jax.training import preparation
from at_jax.training.config import default_values
from benchmarks.faults import configurations, draws, numbers

# Of ml_collections, where it loads a config file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def test_numbers_agree_with_the_reference(tmp_path):
    row = numbers.run(40, tmp_path, seed=3)
    assert row.tried >= 80
    assert not row.failures


def test_numbers_that_differ_are_failures():
    case = numbers._attention(0, "sum", 2, "code", jax.numpy.float32)
    wrong = case._replace(value=case.value * 1.01, gradient=case.gradient * np.nan)
    failures = list(numbers._failures(wrong))
    assert len(failures) == 2 * len(case.scales)
    assert failures[0].startswith("attention_transfer sum p=2 code float32, value at scale")


def test_random_configurations_train_a_step_or_are_refused(tmp_path, compiled_once):
    row = configurations.run(8, tmp_path, seed=11)
    assert row.tried == 8
    assert not row.failures


def test_draws_reach_every_key_and_are_the_same_for_a_seed():
    rng, again = np.random.default_rng(0), np.random.default_rng(0)
    drawn = [draws.draw(rng) for _ in range(400)]
    assert drawn == [draws.draw(again) for _ in range(400)]
    assert {key for each in drawn for key in each} == set(default_values())


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("epochs must be from 1 to 9, got 0: set it with --config.epochs=1", ""),
        ("other.thing must be from 1 to 9, got 0: set it", "names no key"),
        ("epochs is wrong", "names no valid value"),
        ("epochs must be\nset", "more than one line"),
    ],
)
def test_message_of_a_refusal_is_checked(message, problem):
    found = configurations._problem_of_message(message, {"epochs": "0"})
    assert found.startswith(problem) and bool(found) == bool(problem)


def test_configuration_that_raises_is_a_failure(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OverflowError("too large")

    monkeypatch.setattr(preparation, "prepare", fail)
    assert "OverflowError" in configurations._problem({"epochs": "3"}, tmp_path / "run")
