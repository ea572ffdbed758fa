"""Gradients of the terms on input gradients with respect to the student's parameters.

They are compared with PyTorch's autograd.grad(create_graph=True), for a WRN in training mode and a NIN
without batch norm: make_second_order.py stored the results. In float64 also with central differences.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from parity import second_order

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def float64(request):
    """A separate process, because x64 is a switch of the whole process. It runs during the other tests."""
    if not any("float64" in item.name for item in request.session.items):  # deselected
        yield
        return
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
        process.kill()  # still running if the tests were stopped


@functools.cache
def study(network):
    return second_order.load(network, np.float32)


def float32_cases():
    """Each network with each case. The test in float64 has them too, so most are slow tests here."""
    for network in second_order.NETWORKS:
        for name in second_order.CASES:
            is_slow = (network, name) != ("nin_thin", "plain/together")
            yield pytest.param(network, name, marks=pytest.mark.slow if is_slow else ())


@pytest.mark.parametrize(("network", "name"), list(float32_cases()))
def test_terms_in_float32_have_the_gradients_of_torch(network, name):
    # Relative to each leaf's norm; `not <=` because NaN is a failure too.
    errors = study(network).deviations(name)
    assert not {key: error for key, error in errors.items() if not error <= 1e-4}


@pytest.mark.slow
def test_terms_in_float64_have_the_gradients_of_torch_and_of_differences(float64):
    _, errors = float64.communicate()
    assert float64.returncode == 0, errors
