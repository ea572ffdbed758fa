"""Number of the worker processes that decode images."""

import importlib.machinery
import os
import sys

import numpy as np
import pytest

from at_jax import data
from at_jax.data import workers
from at_jax.errors import UserError

GUARDED = 'if __name__ == "__main__":\n    train()'


@pytest.fixture
def installed(monkeypatch):
    """Grain is installed, and the machine has three cores."""
    monkeypatch.setattr(workers, "_is_installed", lambda: True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)


@pytest.fixture
def run_by(tmp_path, monkeypatch):
    """Function that makes a text the main file of this process."""

    def set_main(text):
        script = tmp_path / "script.py"
        script.write_text(text)
        monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)

    return set_main


@pytest.mark.usefixtures("installed")
def test_number_is_automatic(photographs, make_dataset, monkeypatch):
    assert workers.count(photographs, 0) == 0  # few images
    assert workers.count(photographs, -1) == 0
    assert workers.count(photographs, 5) == 5
    monkeypatch.setattr(workers, "_FEW_IMAGES", 7)
    assert workers.count(photographs, 0) == 3
    subset = data.TrainBatches(photographs.split.select(np.arange(8)), 4, seed=0)
    assert workers.count(subset, 0) == 3
    # A user-defined source may not work in another process.
    source = data.TrainBatches(make_dataset(lazy=True).train, 4, seed=0)
    assert workers.count(source, 0) == 0
    monkeypatch.setattr(workers, "_is_installed", lambda: False)
    assert workers.count(photographs, 0) == 0
    with pytest.raises(UserError, match="data.workers=2: expected the package grain.*workers=-1"):
        workers.count(photographs, 2)


@pytest.mark.usefixtures("installed")
def test_program_without_a_guard_has_no_workers(photographs, run_by, monkeypatch):
    monkeypatch.setattr(workers, "_FEW_IMAGES", 7)
    run_by(GUARDED)
    assert (workers.count(photographs, 0), workers.count(photographs, 2)) == (3, 2)
    run_by("train()")  # it would run again in each of them
    assert (workers.count(photographs, 0), workers.count(photographs, -1)) == (0, 0)
    with pytest.raises(
        UserError, match=r"workers=2: expected 'if __name__.*script\.py.*workers=-1"
    ):
        workers.count(photographs, 2)


@pytest.mark.usefixtures("installed")
def test_program_that_workers_do_not_import_needs_no_guard(photographs, run_by, monkeypatch):
    monkeypatch.setattr(workers, "_FEW_IMAGES", 7)
    run_by("train()")
    spec = importlib.machinery.ModuleSpec("package.__main__", None)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    assert (workers.count(photographs, 0), workers.count(photographs, 2)) == (3, 2)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/nowhere.pyz/__main__.py")
    assert (workers.count(photographs, 0), workers.count(photographs, 2)) == (0, 2)
