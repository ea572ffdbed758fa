"""The command line: pictures of a finished run, and one line for what cannot work."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
from own_modules import Tapped
from PIL import Image

from at_jax import models, weights
from at_jax.figures import __main__ as command
from at_jax.figures import networks


def size(path):
    with Image.open(path) as picture:
        return picture.size


def test_maps_of_a_run_and_of_photographs(finished, tmp_path, capsys):
    workdir, out = finished[0], tmp_path / "new" / "maps.png"
    assert command.main(["maps", f"--workdir={workdir}", "--count=2", f"--out={out}"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    width, height = size(out)
    Image.new("RGB", (50, 30), "white").save(tmp_path / "a.jpg")
    photographs = [str(tmp_path / "a.jpg")] * 3
    arguments = [f"--workdir={workdir}", f"--compare={workdir}", "--kind=max", "--p=1"]
    assert command.main(["maps", *arguments, "--images", *photographs, f"--out={out}"]) == 0
    higher = size(out)[1] - height
    assert width > 10 * 96 and 80 < higher < 130  # a row more, of 96 dots and a gap


@pytest.mark.parametrize("what", ["gradients", "mappings"])
def test_gradients_and_mappings_of_a_run(finished, tmp_path, what):
    out = tmp_path / "a.png"
    more = ["--count=2"] if what == "gradients" else ["--index=3"]
    assert command.main([what, f"--workdir={finished[0]}", *more, f"--out={out}"]) == 0
    rows = 2 if what == "gradients" else 6  # three points of each of two networks
    assert rows * 96 < size(out)[1] < rows * 130 + 150


def test_curves_of_runs(finished, tmp_path):
    out = tmp_path / "a.png"
    runs = [str(finished[0]), str(finished[0] / "teacher")]
    assert command.main(["curves", *runs, f"--out={out}"]) == 0
    assert size(out)[0] == 836  # 7.6 inches


def test_pretrained_weights(tmp_path, monkeypatch, capsys):
    # What a file gives is tested with at_jax.weights; here a small network stands for it.
    Image.new("RGB", (50, 30), "white").save(tmp_path / "a.jpg")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    module = Tapped(classes=2)
    given = {"image_shape": [16, 16, 3], "mean": [120.0] * 3, "std": [60.0] * 3, "num_classes": 2}

    def small(path, name, num_classes, image_size):
        assert (name, num_classes, image_size) == ("resnet_34", 2, 16)
        variables = jax.jit(module.init)(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
        return networks.Network(name, module, variables, given)

    monkeypatch.setattr(command.networks, "pretrained", small)
    arguments = ["--weights=w", "--model=resnet_34", "--num_classes=2", "--image_size=16",
                 f"--classes={tmp_path / 'names.txt'}", f"--images={tmp_path / 'a.jpg'}"]  # fmt: skip
    out = tmp_path / "maps.png"
    assert command.main(["maps", *arguments, f"--out={out}"]) == 0
    assert size(out)[0] > 2 * 96
    assert given["class_names"] == ["cat", "dog"]


def test_a_resnet_is_opened_from_its_file(tmp_path):
    module = models.build("resnet_18", num_classes=3)
    variables = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    flat = jax.tree_util.tree_leaves_with_path(variables)
    state = {}
    for path, leaf in flat:
        name = weights._torch_name(tuple(key.key for key in path))
        state[name] = np.zeros(weights._torch_shape(leaf.shape), np.float32)
    safetensors.numpy.save_file(state, tmp_path / "w.safetensors")
    found = networks.pretrained(tmp_path / "w.safetensors", "resnet_18", 3, 64)
    assert found.image_shape == (64, 64, 3) and found.class_name(2) == "class 2"
    assert found.description["mean"][0] == pytest.approx(0.485 * 255)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["maps", "--out=a.png"], "expected a run or pretrained weights, got neither"),
        (["maps", "--workdir=none", "--out=a.png"], "none holds no run"),
        (["maps", "--workdir=none", "--out=a.pdf"], "--out must end in .png, got 'a.pdf'"),
        (["maps", "--workdir=none", "--p=0", "--out=a.png"], "p must be a number of at least 1"),
        (["maps", "--weights=w", "--out=a.png"], "--weights come without images"),
        (["maps", "--weights=w", "--images=b.jpg", "--out=a.png"], "there is no file 'w'"),
        (["maps", "--workdir=RUN", "--images", "b.jpg", "--out=a.png"], "there is no file 'b.jpg'"),
        (["maps", "--workdir=RUN", "--count=0", "--out=a.png"], "--count must be at least 1"),
        (["mappings", "--workdir=RUN", "--index=999", "--out=a.png"], "from 0 to 354, got 999"),
        (["maps", "--workdir=RUN", "--classes=c", "--out=a.png"], "--classes: 'c' cannot be read"),
        (["curves", "none", "--out=a.png"], "none holds no run"),
    ],
)
def test_what_cannot_work_is_one_line(finished, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    # All of it is found before anything is computed.
    monkeypatch.setattr(networks.Network, "look", None)
    monkeypatch.setattr(networks, "before_training", None)
    assert command.main([a.replace("RUN", str(finished[0])) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("arguments", [[], ["maps"], ["draw"], ["maps", "--out=a.png", "--kind=x"]])
def test_bad_flags_are_one_line(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.startswith("error: ") and error.count("\n") == 1 and "--help" in error


def test_help_comes_with_examples():
    done = subprocess.run(
        [sys.executable, "-m", "at_jax.figures", "--help"],
        capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert done.returncode == 0 and "python -m at_jax.figures maps --workdir" in done.stdout
