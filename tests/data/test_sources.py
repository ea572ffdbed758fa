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
    with pytest.raises(UserError, match=f"{key}: expected an integer of 0 or more, got -1: use 0"):
        load("digits", **{key: -1})


@pytest.mark.parametrize(
    ("key", "value"),
    [("test_fraction", 1.5), ("test_fraction", float("nan")), ("test_fraction", "0.2"),
     ("split_seed", -1), ("split_seed", 1.5), ("image_size", 8.5), ("resize", "256")],
)  # fmt: skip
def test_load_with_a_number_of_another_kind_raises(key, value):
    with pytest.raises(UserError, match=f"{key}: expected .*, got {value!r}: use "):
        load("digits", **{key: value})


def test_import_of_the_package_imports_no_reader():
    code = (
        "import sys, at_jax.data; loaded = sys.modules;"
        "assert not {'sklearn', 'tensorflow_datasets', 'PIL'} & set(loaded);"
        "at_jax.data.load('digits'); assert 'sklearn' not in loaded"
    )
    root = pathlib.Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
