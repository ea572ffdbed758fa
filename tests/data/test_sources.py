"""Data sources by name."""

import pathlib
import subprocess
import sys

import pytest

from at_jax.data import load
from at_jax.errors import UserError


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("digts", "did you mean 'digits'"),
        ("Folder", "did you mean 'folder'"),
        ("cifar10", "--config.data.source=tfds --config.data.name=cifar10"),
    ],
)
def test_load_of_an_unknown_source_names_the_known_ones_and_a_fix(source, hint):
    with pytest.raises(UserError, match=f"one of digits, folder, tfds, got '{source}': .*{hint}"):
        load(source)


@pytest.mark.parametrize("key", ["image_size", "memory_limit_mb"])
def test_load_with_a_negative_number_raises(key):
    with pytest.raises(UserError, match=f"{key}: expected 0 or more .*, got -1: use 0"):
        load("digits", **{key: -1})


def test_import_of_the_package_imports_no_reader():
    code = (
        "import sys, at_jax.data; loaded = sys.modules;"
        "assert not {'sklearn', 'tensorflow_datasets', 'PIL'} & set(loaded);"
        "at_jax.data.load('digits'); assert 'sklearn' not in loaded"
    )
    root = pathlib.Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
