"""The command line: figures of finished runs, and one line for an error of the user."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import small_run
import tiny
from own_modules import Tapped, Untapped
from PIL import Image

from at_jax import loop
from at_jax.figures import command, networks


def size(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return picture.size


def photograph(tmp_path):
    Image.new("RGB", (50, 30), "white").save(tmp_path / "a.jpg")
    return str(tmp_path / "a.jpg")


def test_maps_of_a_run_and_of_photographs(finished, tmp_path, capsys):
    workdir, out = finished[0], tmp_path / "new" / "maps.png"
    assert command.main(["maps", f"--workdir={workdir}", "--count=2", f"--out={out}"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    width, height = size(out)
    arguments = [f"--workdir={workdir}", f"--compare={workdir}", "--kind=max", "--p=1"]
    photographs = [photograph(tmp_path)] * 3
    assert command.main(["maps", *arguments, "--images", *photographs, f"--out={out}"]) == 0
    assert width > 10 * 72 and size(out)[1] > height + 60  # one row more


@pytest.mark.parametrize("what", ["gradients", "mappings"])
def test_gradients_and_mappings_of_a_run(finished, tmp_path, what):
    out = tmp_path / "a.png"
    more = ["--count=2"] if what == "gradients" else ["--index=3"]
    assert command.main([what, f"--workdir={finished[0]}", *more, f"--out={out}"]) == 0
    rows = 2 if what == "gradients" else 6  # three points of each of two networks
    assert rows * 72 < size(out)[1] < rows * 170 + 200


def test_curves_of_runs(finished, tmp_path):
    out = tmp_path / "a.png"
    runs = [str(finished[0]), str(finished[0] / "teacher")]
    assert command.main(["curves", *runs, f"--out={out}"]) == 0
    assert size(out)[0] == 836  # 7.6 inches


def test_maps_of_pretrained_weights(tmp_path, monkeypatch):
    # Loading a file is tested in test_networks.py; here a small network replaces it.
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    module = Tapped(classes=2)
    given = {"image_shape": [16, 16, 3], "mean": [120.0] * 3, "std": [60.0] * 3, "num_classes": 2}

    def small(path, name, num_classes, image_size):
        assert (name, num_classes, image_size) == ("resnet_34", 2, 16)
        zeros = np.zeros((1, 16, 16, 3), np.float32)
        variables = tiny.jit(module.init)(tiny.jax.random.key(0), zeros)
        return networks.Network(name, module, variables, given)

    monkeypatch.setattr(command.networks, "pretrained", small)
    arguments = ["--weights=w", "--model=resnet_34", "--num_classes=2", "--image_size=16",
                 f"--class_names={tmp_path / 'names.txt'}", f"--images={photograph(tmp_path)}"]  # fmt: skip
    out = tmp_path / "maps.png"
    assert command.main(["maps", *arguments, f"--out={out}"]) == 0
    assert size(out)[0] > 2 * 72
    assert given["class_names"] == ["cat", "dog"]


def test_maps_of_a_pretrained_network_draw_photographs_and_their_most_probable_classes(
    tmp_path, monkeypatch
):
    # Its weights are in an extra, see tests/models/test_imagenet.py; here a small network replaces it.
    module, names = Tapped(classes=4), ["cat", "dog", "bird", "fish"]
    zeros = np.zeros((1, 16, 16, 3), np.float32)
    variables = tiny.jit(module.init)(tiny.jax.random.key(0), zeros)
    kernel = variables["params"]["Dense_0"]["kernel"]
    # Logits 0, log 2, log 4, log 1: probabilities 1/8, 2/8, 4/8, 1/8.
    bias = np.log(np.array([1, 2, 4, 1], np.float32))
    variables["params"]["Dense_0"] = {"kernel": 0 * kernel, "bias": bias}
    given = {"image_shape": [16, 16, 3], "mean": [127.0] * 3, "std": [128.0] * 3, "num_classes": 4,
             "name": "Small", "class_names": names}  # fmt: skip

    def small(name):
        assert name == "efficientnet_lite0"
        return networks.Network("Small", module, variables, given)

    drawn = []
    monkeypatch.setattr(command.networks, "of_imagenet", small)
    monkeypatch.setattr(command.network_figures.grid, "draw", lambda *a, **k: drawn.append((a, k)))
    monkeypatch.setattr(command.style, "save", lambda *_: None)
    out = f"--out={tmp_path / 'maps.png'}"
    assert command.main(["maps", "--network=efficientnet_lite0", out]) == 0
    assert command.main(["gradients", "--network=efficientnet_lite0", out]) == 0
    for (shown, _, captions), words in drawn:
        assert len(shown) == 3 and words["title"].endswith("of Small")
        lines = [[(line.text, line.bold) for line in caption] for caption in captions]
        assert lines == 3 * [[("bird 50%", True), ("dog 25%", False), ("cat 12%", False)]]
    assert [column.head for column in drawn[0][0][1]] == [""]  # the title names the only network


def test_class_names_of_another_number_are_one_line(finished, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("cat\ndog\n\n")
    arguments = [f"--workdir={finished[0]}", f"--class_names={tmp_path / 'names.txt'}"]
    assert command.main(["maps", *arguments, f"--out={tmp_path / 'a.png'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "must have 10 names, one per line" in error
    assert "got 2" in error


def test_the_title_of_each_network_is_true(finished, monkeypatch):
    titles = []

    def record(shown, *_, **__):
        titles.append([network.title for network in shown])
        raise command.UserError("enough")

    monkeypatch.setattr(command.network_figures, "attention_grid", record)
    monkeypatch.setattr(command, "_images", lambda *_: None)
    teacher = str(finished[0] / "teacher")
    for arguments in (
        [f"--workdir={finished[0]}"], [f"--workdir={teacher}"],
        [f"--workdir={finished[0]}", f"--compare={teacher}"],
    ):  # fmt: skip
        assert command.main(["maps", *arguments, "--out=a.png"]) == 2
    assert titles == [
        ["student", "untrained", "teacher"], ["wrn_10_0.5", "untrained"],
        ["student", "wrn_10_0.5, labels only", "teacher"],
    ]  # fmt: skip


@pytest.fixture(scope="module")
def own(tmp_path_factory, compiled_once):
    """A run of a user-defined module with a teacher of 7 classes; both were passed as arguments."""
    workdir = tmp_path_factory.mktemp("own")
    module = Tapped(classes=7)
    zeros = np.zeros((1, 16, 16, 1), np.float32)
    teacher = module, tiny.jit(module.init)(tiny.jax.random.key(0), zeros)
    config = small_run.config(
        method="at",
        epochs=1,
        data__train_examples=20,
        optimizer__drop_epochs=(),
        transfer__points=("layer<-only",),
    )
    loop.train_and_evaluate(config, workdir, student=Untapped(), teacher=teacher)
    return workdir


@pytest.mark.parametrize("module", ["own_modules:Untapped", "own_modules:make_untapped"])
def test_maps_of_a_user_defined_module_that_is_named(own, tmp_path, capsys, monkeypatch, module):
    monkeypatch.setattr("own_modules.make_untapped", Untapped, raising=False)
    out = tmp_path / "a.png"
    arguments = [f"--workdir={own}", f"--module={module}", "--count=1", f"--out={out}"]
    assert command.main(["maps", *arguments]) == 0
    assert "The teacher was passed as an argument and is not stored" in capsys.readouterr().err
    assert size(out)[0] > 2 * 72


def test_maps_of_a_user_defined_module_that_is_not_named_say_what_to_pass(own, tmp_path, capsys):
    assert command.main(["maps", f"--workdir={own}", f"--out={tmp_path / 'a.png'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "--module=own_modules:Untapped" in error


def test_a_data_set_passed_as_an_argument_needs_images(finished, tmp_path, capsys):
    workdir, out = tmp_path / "run", tmp_path / "a.png"
    shutil.copytree(finished[0], workdir)
    stored = json.loads((workdir / "config.json").read_text())
    stored["arguments"] = {"dataset": {"name": "arrays"}}
    (workdir / "config.json").write_text(json.dumps(stored))
    arguments = ["gradients", f"--workdir={workdir}", f"--out={out}"]
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert "was trained on a data set passed as an argument: pass --images" in error
    assert command.main([*arguments, f"--images={photograph(tmp_path)}"]) == 0
    assert size(out)[0] > 2 * 72


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["maps", "--out=a.png"], "expected a run or pretrained weights, got neither"),
        (
            ["maps", "--network=efficientnet_lite0", "--weights=w", "--out=a.png"],
            "got --weights and --n",
        ),
        (["maps", "--workdir=none", "--out=a.png"], "none holds no run"),
        (["maps", "--workdir=none", "--out=a.pdf"], "--out must end in .png, got 'a.pdf'"),
        (["maps", "--workdir=none", "--p=0", "--out=a.png"], "p must be a number from 1 to 16"),
        (["maps", "--weights=w", "--out=a.png"], "--weights needs images"),
        (
            ["maps", "--weights=w", "--images=b.jpg", "--out=a.png"],
            "w cannot be read as weights: there is no such file",
        ),
        (["maps", "--workdir=RUN", "--images", "b.jpg", "--out=a.png"], "there is no file 'b.jpg'"),
        (["maps", "--workdir=RUN", "--count=0", "--out=a.png"], "--count must be from 1 to 100"),
        (["mappings", "--workdir=RUN", "--index=999", "--out=a.png"], "from 0 to 354, got 999"),
        (
            ["maps", "--workdir=RUN", "--class_names=c", "--out=a.png"],
            "--class_names: 'c' cannot be read",
        ),
        (["curves", "none", "--out=a.png"], "none holds no run"),
        (["curves", "RUN", "RUN/", "--out=a.png"], "each run is drawn once"),
        (
            ["maps", "--workdir=RUN", "--data_dir=/nope", "--out=a.png"],
            "got /nope for the digits",
        ),
        (
            ["maps", "--weights=w", "--images=b.jpg", "--compare=RUN", "--out=a.png"],
            "--compare is for --workdir, got --weights: leave it out",
        ),
        (
            ["maps", "--workdir=RUN", "--model=wrn_16_1", "--out=a.png"],
            "--model is for --weights, got",
        ),
        (
            ["maps", "--network=efficientnet_lite0", "--which=best", "--out=a.png"],
            "--which is for --workdir, got --network",
        ),
    ],
)
def test_an_error_of_the_user_is_one_line(
    finished, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    # All of them are found before anything is computed.
    monkeypatch.setattr(networks.Network, "attention", None)
    monkeypatch.setattr(networks, "before_training", None)
    assert command.main([a.replace("RUN", str(finished[0])) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "a.png").exists()


def test_another_error_keeps_its_traceback(monkeypatch):
    def fail(_):
        raise ValueError("tuple.index(x): x not in tuple")

    monkeypatch.setattr(command.curves, "read", fail)
    with pytest.raises(ValueError, match="x not in tuple"):
        command.main(["curves", "run", "--out=a.png"])


@pytest.mark.parametrize("arguments", [[], ["maps"], ["draw"], ["maps", "--out=a.png", "--kind=x"]])
def test_invalid_flags_are_one_line(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.startswith("error: ") and error.count("\n") == 1 and "--help" in error


def test_help_has_examples():
    done = subprocess.run(
        [sys.executable, "-m", "at_jax.figures", "--help"],
        capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert done.returncode == 0 and "at-jax figures maps --workdir" in done.stdout
