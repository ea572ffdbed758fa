"""The command at-jax: its subcommands, and one line for each mistake."""

import json
import re
import sys
import types
import warnings

import numpy as np
import pytest
from PIL import Image

from at_jax import cli, data, extras, loop, version
from at_jax.cli import commands, predict
from at_jax.errors import UserError
from at_jax.training import config_files
from at_jax.training.components import datasets
from at_jax.training.files import identity


def run(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        code = stopped.code
    return code, *capsys.readouterr()


def test_help_lists_the_commands(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for name in ("train", "evaluate", "predict", "figures", "tables", "weights", "data"):
        assert re.search(rf"^  {name} ", out, re.MULTILINE)
    assert run(capsys)[0] == 2
    assert run(capsys, "--version") == (0, f"at_jax {version.__version__}\n", "")


@pytest.mark.parametrize("name", ["evaluate", "predict", "figures", "tables", "weights", "data"])
def test_help_of_a_command_names_it(capsys, name):
    code, out, _ = run(capsys, name, "--help")
    assert code == 0 and f"at-jax {name}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "at-jax has no command 'trian': did you mean train?"),
        (["quantize"], "no command 'quantize': use one of train, evaluate, predict"),
        (["evaluate"], "required: --workdir"),
        (["evaluate", "--wrokdir=x"], "'--wrokdir=x': did you mean --workdir?"),
        (["predict", "--modul=x", "--jsn"], "'--jsn': did you mean --json?"),
        (["figures", "maps", "--wokdir=x"], "'--wokdir=x': did you mean --workdir?"),
        (["data", "--dataste=x"], "--dataste=x: did you mean --dataset?"),
        (["evaluate", "--workdir=/nowhere"], "--workdir: /nowhere holds no run"),
        (["predict", "--workdir=/nowhere", "a.jpg"], "/nowhere holds no checkpoints"),
        (["predict", "--workdir=/nowhere"], "required: FILE"),
        (["predict", "--workdir=/nowhere", "--top=0", "a.jpg"], "--top must be at least 1, got 0"),
        (["train", "--config.seed=abc"], "seed must be a whole number, got 'abc': set it with .*seed=0"),
        (["train", "--config.epochs=1e3"], "epochs must be a whole number, got '1e3': .*epochs=200"),
        (["train", "--config.at.p=x"], "at.p must be a number, got 'x': set it with --config.at.p=2.0"),
        (["train", "--config.data.mirror=2"], "data.mirror must be True or False, got '2'"),
        (["train", "--config.optimizer=3"], "--config.optimizer is a section .*optimizer.name="),
        (["train", "--config.seed"], "seed must be a whole number, got ''"),
        (["figures", "mpas"], "invalid choice: 'mpas'"),
        (["figures", "maps", "--workdir=/nowhere", "--out=a.png"], "/nowhere holds no"),
        (["tables", "digit"], "did you mean digits?"),
        (["tables", "digits", "--sedes=3"], "unknown argument '--sedes=3'"),
        (["data", "--datasets"], "unrecognized arguments|expected one argument|--dataset"),
        (["data", "--dataset="], "--dataset: expected the name"),
    ],
)  # fmt: skip
def test_mistake_prints_one_line_and_ends_with_2(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and len(err.splitlines()) == 1, err
    assert re.search(message, err), err


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("orbax.checkpoint", ["evaluate", "--workdir=x"], "train"),
        ("PIL", ["predict", "--workdir=x", "a.jpg"], "train"),
        ("matplotlib", ["figures", "curves", "x", "--out=a.png"], "figures"),
        ("filelock", ["tables", "--list"], "train"),
        ("tensorflow_datasets", ["data", "--dataset=cifar10"], "data"),
    ],
)
def test_missing_package_prints_the_extra_to_install(
    capsys, monkeypatch, package, arguments, extra
):
    def load(name):
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(commands.importlib, "import_module", load)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.endswith(f'is not installed: pip install "at_jax[{extra}]"\n')
    assert len(err.splitlines()) == 1


def test_missing_package_that_is_no_extra_raises(monkeypatch):
    def load(name):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(commands.importlib, "import_module", load)
    with pytest.raises(ModuleNotFoundError, match="torch"):
        cli.main(["evaluate"])
    assert extras.missing(ImportError("cannot import name"), "at-jax train") is None


def test_evaluate_needs_only_the_workdir(finished, capsys):
    workdir, result, _ = finished
    code, out, err = run(capsys, "evaluate", "--workdir", workdir)
    assert code == 0, err
    assert f"test error {result['test_error']:.2f} % (best checkpoint" in out
    code, out, _ = run(capsys, "evaluate", "--workdir", workdir, "--json")
    assert json.loads(out)["test_error"] == result["test_error"]


def test_evaluate_of_moved_images_names_its_own_flag(monkeypatch, finished, capsys):
    def fail(*_, **__):
        raise UserError("image folder /gone: create it, or set --config.data.data_dir=DIR to it")

    monkeypatch.setattr(loop, "evaluate", fail)
    code, _, err = run(capsys, "evaluate", "--workdir", finished[0])
    assert code == 2 and err.endswith("create it, or set --data_dir DIR to it\n")

    code, _, err = run(capsys, "evaluate", "--workdir", finished[0], "--data_dir", "other")
    assert code == 2 and "got other for the digits" in err
    # As for a run of images in a directory.
    monkeypatch.setattr(datasets, "check_moved", lambda source, data_dir: None)

    def refuse(*_, **__):
        others = types.SimpleNamespace(class_names=("ant",))
        identity.check_classes(finished[0], {"class_names": ("bee",)}, others)

    monkeypatch.setattr(loop, "evaluate", refuse)
    code, _, err = run(capsys, "evaluate", "--workdir", finished[0], "--data_dir", "other")
    assert code == 2 and "or choose the --data_dir of its images; at-jax predict" in err


@pytest.fixture
def photographs(tmp_path):
    paths = [tmp_path / "wide.jpg", tmp_path / "high.png"]
    Image.new("RGB", (90, 30), "white").save(paths[0])
    Image.new("L", (20, 70), 7).save(paths[1])
    return [str(path) for path in paths]


def test_predict_prints_classes_and_probabilities(finished, photographs, capsys):
    code, out, err = run(capsys, "predict", "--workdir", finished[0], *photographs, "--top", 3)
    assert code == 0, err
    head, *lines = out.splitlines()
    assert head.split() == ["file", "class", "probability"]
    assert len(lines) == 6 and lines[0].startswith(photographs[0])
    code, out, _ = run(capsys, "predict", "--workdir", finished[0], "--json", *photographs)
    first, second = map(json.loads, out.splitlines())
    assert [first["file"], second["file"]] == photographs
    assert first["predictions"][0]["class"] == lines[0].split()[1]


def test_predicted_probabilities_are_those_of_the_network(finished, photographs, monkeypatch):
    # Batches of three: the last one is padded.
    monkeypatch.setattr(predict, "_BATCH", 3)
    files = [*photographs, *photographs]
    found = list(predict.predict(finished[0], files, top=10, on_error=pytest.fail))
    assert [each.file for each in found] == files
    for _, classes, true_class in found:
        assert true_class is None
        probabilities = [p for _, p in classes]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert probabilities == sorted(probabilities, reverse=True)
        assert {name for name, _ in classes} == set("0123456789")
    assert dict(found[0][1]) == pytest.approx(dict(found[2][1])) != dict(found[1][1])


def test_error_of_images_in_directories_of_the_classes_is_that_of_evaluate(
    finished, tmp_path, capsys
):
    test = data.load("digits").test
    pixels, labels = test.take(np.arange(len(test)))
    for index, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        (tmp_path / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(tmp_path / str(label) / f"{index}.png")
    (tmp_path / "unknown").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "unknown" / "a.png")
    code, out, err = run(capsys, "predict", "--workdir", finished[0], "--json", tmp_path)
    *lines, last = map(json.loads, out.splitlines())
    assert code == 0 and len(lines) == len(test) and "true_class" not in last
    wrong = sum(line["predictions"][0]["class"] != line["true_class"] for line in lines)
    error = f"{finished[1]['test_error']:.2f}"
    assert err == (
        f"note: error {error} %: of {len(test)} images in directories with the name of a class, {wrong} "
        "are classified as another\n"
    )


def test_predict_with_a_file_that_is_no_image_prints_one_line(finished, tmp_path, capsys):
    (tmp_path / "a.jpg").write_text("no image")
    for name, message in (("a.jpg", "got a file that is text"), ("b.jpg", "there is no file")):
        code, _, err = run(capsys, "predict", "--workdir", finished[0], tmp_path / name)
        assert code == 2 and err.startswith("error: FILE: ") and message in err


def test_predict_classifies_the_files_that_it_can_read(finished, photographs, tmp_path, capsys):
    (tmp_path / "a.heic").write_text("no image")
    (tmp_path / "empty").mkdir()
    files = [photographs[0], tmp_path / "a.heic", tmp_path / "empty", photographs[1]]
    code, out, err = run(capsys, "predict", "--workdir", finished[0], "--json", *files)
    assert code == 2
    assert [json.loads(line)["file"] for line in out.splitlines()] == photographs
    assert "a.heic: expected a readable" in err and "got a file that is text" in err
    assert f"GIF, got none in {tmp_path / 'empty'}: convert" in err


def test_predict_of_a_directory_without_images_counts_its_files(finished, tmp_path, capsys):
    (tmp_path / "a.heic").write_text("no image")
    code, out, err = run(capsys, "predict", "--workdir", finished[0], tmp_path)
    assert (code, out) == (2, "")
    assert f"got none in {tmp_path} (skipped 1 file: 1 is of another format): convert" in err


def test_predict_classifies_the_images_in_a_directory(
    finished, photographs, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(predict, "_BATCH", 2)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "below").mkdir()
    for name in ("b.png", "damaged.png"):
        Image.new("L", (30, 30), 200).save(tmp_path / "below" / name)
    (tmp_path / "below" / "damaged.png").write_bytes(b"\x89PNG")
    code, out, err = run(capsys, "predict", "--workdir", finished[0], "--json", tmp_path)
    assert code == 2
    expected = [str(tmp_path / "below" / "b.png"), *sorted(photographs)]
    assert [json.loads(line)["file"] for line in out.splitlines()] == expected
    note, error = err.splitlines()
    assert note == f"note: {tmp_path}: skipped 1 file: 1 is of another format"
    assert error.startswith("error: FILE: image") and "damaged.png" in error


def test_config_is_found_by_name_and_by_path(tmp_path):
    assert config_files.find("digits") == config_files.folder() / "digits.py"
    own = tmp_path / "mine.py"
    own.write_text(config_files.find("digits").read_text().replace('"wrn_10_1"', '"wrn_10_2"'))
    assert config_files.load(str(own)).student == "wrn_10_2"
    assert config_files.load("digits").compare == ("none", "at")
    assert config_files.load("digits", "method=at").compare == ()


def test_python_m_at_jax_is_the_command():
    source = (config_files.folder().parent / "at_jax" / "__main__.py").read_text()
    assert "from at_jax.cli import main" in source and "sys.exit(main())" in source
    assert "at_jax.cli" in sys.modules


def test_warning_of_the_library_is_one_line(monkeypatch, capsys):
    def warn(argv):
        # As warnings.warn prints it, which pytest records instead.
        sys.stderr.write(warnings.formatwarning("checkpoint 5 is damaged", UserWarning, "a.py", 1))
        return 0

    monkeypatch.setattr("at_jax.cli.evaluate.main", warn)
    assert cli.main(["evaluate"]) == 0
    assert capsys.readouterr().err == "warning: checkpoint 5 is damaged\n"
