"""Terms on input gradients: their gradients by the student's weights (design 4.4, 4.17).

Against PyTorch's autograd.grad(create_graph=True), on a WRN in training mode and on a NIN without
batch norm: parity/make_second_order.py stored its numbers. In float64 also against differences.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from parity import second_order

TESTS = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def float64():
    """A process of its own, for x64 is a switch of the whole process; it runs beside the other tests."""
    paths = [str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, str(TESTS / "parity" / "check_second_order.py")],
        env=os.environ
        | {"JAX_ENABLE_X64": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.kill()  # Where its test was not asked for; else it has ended.


@functools.cache
def study(network):
    return second_order.load(network, np.float32)


@pytest.mark.parametrize("name", second_order.CASES)
@pytest.mark.parametrize("network", second_order.NETWORKS)
def test_in_float32(network, name):
    # A share of each leaf's norm; `not <=` because NaN is a failure too.
    errors = study(network).deviations(name)
    assert not {key: error for key, error in errors.items() if not error <= 1e-4}


def test_in_float64(float64):
    _, errors = float64.communicate()
    assert float64.returncode == 0, errors
