"""Types of the public functions, as mypy sees them in a program of a user."""

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import at_jax

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


@pytest.fixture(scope="module")
def mypy(pytestconfig):
    """Check files as mypy checks a user's: errors inside the library are not reported."""
    pytest.importorskip("mypy")
    cache = pytestconfig.cache.mkdir("mypy")

    def run(file):
        command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"]
        command += ["--config-file=", f"--cache-dir={cache}", str(FOLDER / file)]
        environment = os.environ | {"MYPYPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=cache, env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.mark.slow  # mypy reads jax again; make lint checks the library
def test_user_program_passes_mypy_strict(mypy):
    done = mypy("user_program.py")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow  # as above
def test_wrong_calls_are_errors_of_mypy(mypy):
    done = mypy("wrong_calls.py")
    found = re.findall(r"wrong_calls\.py:(\d+): error: .*\[(.*)\]", done.stdout)
    lines = (FOLDER / "wrong_calls.py").read_text().splitlines()
    expected = [str(number) for number, line in enumerate(lines, start=1) if "# error" in line]
    assert len(expected) == 3
    assert [line for line, _ in found] == expected, done.stdout + done.stderr
    assert [code for _, code in found] == ["call-arg", "arg-type", "arg-type"]


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("user_program", FOLDER / "user_program.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_user_program_computes_a_scalar(program):
    assert jax.eval_shape(program.main).shape == ()


@pytest.mark.parametrize("has_aux", [False, True])
def test_user_program_differentiates_a_loss_with_and_without_aux(program, has_aux):
    assert (program.differentiate(jnp.ones((1, 2, 2, 3)), has_aux) == 2).all()


def test_user_program_compares_numpy_arrays(program):
    soft, counts, correlation = program.compare(np.ones((2, 4, 4, 3), np.float32), np.array([0, 1]))
    assert soft.shape == correlation.shape == (2,) and counts.sum() == 2


def test_package_is_marked_as_typed():
    assert (Path(at_jax.__file__).parent / "py.typed").exists()
