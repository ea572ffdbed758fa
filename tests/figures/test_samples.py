"""Photographs of scikit-learn and matplotlib."""

import importlib.util
from types import SimpleNamespace

import pytest
from PIL import Image

from at_jax.errors import UserError
from at_jax.figures import samples


def test_photographs_are_images():
    for path in samples.photographs():
        with Image.open(path) as image:
            assert min(image.size) >= 400, path


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (None, r'a figure without --images needs sklearn, .*pip install "at_jax\[train\]"'),
        (
            SimpleNamespace(submodule_search_locations=["/nowhere"]),
            "the installed sklearn has no datasets/images/china.jpg: pass --images",
        ),
    ],
)
def test_a_package_without_photographs_is_one_line(monkeypatch, spec, message):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match=message):
        samples.photographs()
