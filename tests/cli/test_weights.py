"""The command at-jax weights: files become runs, runs become files, bad input changes nothing."""

import errno
import json
import os
import pathlib
import re
import runpy
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tiny
import torch_writer as writer
from parity import networks

from at_jax import checkpoint, cli, data, models
from at_jax.errors import UserError
from at_jax.models import pretrained
from at_jax.training import export
from at_jax.training.components.networks import load_teacher, open_run
from at_jax.training.config import default_config
from at_jax.training.files import run_files
from at_jax.training.files.checkpoints import Checkpoints

SHAPES = networks.reference_shapes(10, 1, 5)
WEIGHTS = networks.generated(SHAPES)
MODEL = "--model=wrn_10_1"
ROOT = pathlib.Path(__file__).parents[2]


def run(capsys, *arguments):
    """Exit code, stdout and stderr of at-jax weights."""
    try:
        code = cli.main(["weights", *map(str, arguments)])
    except SystemExit as stopped:
        code = stopped.code
    return code, *capsys.readouterr()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "wrn.pth"
    path.write_bytes(writer.zip_file(writer.state_dict(WEIGHTS), writer.contents(WEIGHTS)))
    return path


def test_weights_of_a_file_become_a_run(source, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\ndog\neel\n")
    dest = tmp_path / "new" / "run"
    given = [source, dest, MODEL, f"--class_names={tmp_path / 'names.txt'}"]
    code, out, err = run(capsys, *given)
    assert (code, err) == (0, "")
    assert out == f"{dest}: WRN-10-1 with 5 classes from {source}\n"
    module, variables = checkpoint.load(dest)
    assert module == models.build("wrn_10_1", num_classes=5)
    chex.assert_trees_all_equal(variables, pretrained.convert(WEIGHTS, module).variables)
    described = open_run(dest)[2]
    assert described["class_names"] == ["ant", "bee", "cat", "dog", "eel"]
    assert (described["image_shape"], described["mean"][0]) == ([32, 32, 3], 125.3)
    assert load_teacher(str(dest), "float32").description == described  # a finished run
    assert [path.name for path in dest.parent.iterdir()] == ["run"]
    # It is not trained: its config is that of no other run.
    with pytest.raises(UserError, match="holds a run with another config"):
        run_files.check(dest, default_config().to_dict())


def test_file_of_another_network_than_the_default_names_the_flag(source, tmp_path, capsys):
    code, _, err = run(capsys, source, tmp_path / "run")
    assert code == 2 and err.count("\n") == 1
    assert "wrn.pth (without --model: resnet_18) does not fit ResNet-18 with 5 classes" in err


def test_another_number_of_classes_gets_a_new_classifier_and_a_line(source, tmp_path, capsys):
    code, out, _ = run(capsys, source, tmp_path / "run", MODEL, "--num_classes=7", "--seed=3")
    assert code == 0
    assert out.splitlines()[0] == (
        "The classifier in the file has 5 classes: a new one for 7 classes is initialized (seed 3)"
    )
    module, variables = checkpoint.load(tmp_path / "run")
    fresh = jax.jit(lambda key: module.init(key, jnp.zeros((1, 32, 32, 3)))["params"]["classifier"])
    head = variables["params"].pop("classifier")
    chex.assert_trees_all_equal(head, fresh(jax.random.key(3)))
    of_file = pretrained.convert(WEIGHTS, models.build("wrn_10_1", 5)).variables
    del of_file["params"]["classifier"]
    chex.assert_trees_all_equal(variables, of_file)


def test_load_without_a_key_asks_for_the_number_of_classes(source):
    module = models.build("wrn_10_1", 7)
    with pytest.raises(UserError, match=r"set the number of classes to 5$"):
        pretrained.load(source, module)
    loaded = pretrained.load(source, module, key=jax.random.key(0))
    assert (loaded.new_head, loaded.classes) == (True, 5)
    loaded = pretrained.load(source, models.build("wrn_10_1", 5), key=jax.random.key(0))
    assert (loaded.new_head, loaded.classes) == (False, 5)


def test_a_trained_student_comes_back_bit_for_bit(finished, tmp_path, capsys):
    workdir = finished[0]
    file, dest = tmp_path / "student.safetensors", tmp_path / "run"
    code, _, err = run(capsys, workdir, file, "--to-safetensors")
    assert (code, err) == (0, "")
    names = safetensors.numpy.load_file(file)
    assert names["group0.block0.conv0"].shape[2:] == (3, 3)
    # The file says how its network is used.
    assert run(capsys, file, dest)[0] == 0
    chex.assert_trees_all_equal(checkpoint.load(dest), checkpoint.load(workdir))
    before, after = open_run(workdir)[2], open_run(dest)[2]
    for key in ("name", "class_names", "image_shape", "mean", "std", "resize", "bit_depth"):
        assert after[key] == before[key]
    # Options override it, and other classes have no names.
    flags = ["--image_size=32", "--mean=0", "--std=255", "--num_classes=3"]
    assert run(capsys, file, tmp_path / "other", *flags)[0] == 0
    other = open_run(tmp_path / "other")[2]
    assert (other["image_shape"], other["mean"], other["std"]) == ([32, 32, 1], [0.0], [255.0])
    assert other["class_names"] == ["class 0", "class 1", "class 2"]


def test_images_that_are_not_square_keep_their_shape(tmp_path, capsys):
    module, file = models.build("wrn_10_1", 5), tmp_path / "a.safetensors"
    described = {"name": "wrn_10_1", "class_names": list("abcde"), "image_shape": [12, 20, 3],
                 "mean": [9.0] * 3, "std": [60.0] * 3}  # fmt: skip
    arrays = pretrained.state_dict(pretrained.convert(WEIGHTS, module).variables, module)
    file.write_bytes(pretrained.dumps(arrays, pretrained.metadata(described)))
    for flags, shape, size in (((), [12, 20, 3], 0), (("--image_size=16",), [16, 16, 3], 16)):
        dest = tmp_path / f"run{size}"
        assert run(capsys, file, dest, *flags)[0] == 0
        assert open_run(dest)[2]["image_shape"] == shape
        assert run_files.read_config(dest)["data"]["image_size"] == size


def test_photographs_are_resized_and_read_as_in_the_training_of_the_weights(tmp_path, capsys):
    module, file = models.build("wrn_10_1", 5), tmp_path / "a.safetensors"
    described = {"name": "wrn_10_1", "class_names": list("abcde"), "image_shape": [16, 16, 3],
                 "mean": [9.0] * 3, "std": [60.0] * 3, "resize": 18, "bit_depth": 12}  # fmt: skip
    arrays = pretrained.state_dict(pretrained.convert(WEIGHTS, module).variables, module)
    file.write_bytes(pretrained.dumps(arrays, pretrained.metadata(described)))
    cases = {"file": ([], 18), "flag": (["--resize=20"], 20), "size": (["--image_size=24"], 0),
             "same": (["--image_size=16"], 18)}  # fmt: skip
    for name, (flags, resize) in cases.items():
        assert run(capsys, file, tmp_path / name, *flags)[0] == 0
        found = open_run(tmp_path / name)[2]
        assert (found["resize"], found["bit_depth"]) == (resize, 12)
        assert run_files.read_config(tmp_path / name)["data"]["resize"] == resize


def test_files_without_a_bit_depth_are_read_at_full_depth(source, tmp_path, capsys):
    # At depth 8 every pixel of a 16-bit file would be white.
    assert run(capsys, source, tmp_path / "run", MODEL)[0] == 0
    assert open_run(tmp_path / "run")[2]["bit_depth"] == 16


def test_class_names_are_compared_in_composed_form_and_without_spaces(source, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("cafe\u0301 \nb\nc\r\nd\ne\n\n")
    flags = [MODEL, f"--class_names={tmp_path / 'names.txt'}"]
    assert run(capsys, source, tmp_path / "run", *flags)[0] == 0
    assert open_run(tmp_path / "run")[2]["class_names"] == ["caf\u00e9", *"bcde"]


def test_home_directory_is_expanded(source, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(capsys, f"~/{source.name}", tmp_path / "run", MODEL)[0] == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--to-safetensors", "--model=wrn_16_1"], "--model has no effect in exporting a run"),
        (["--to-safetensors", "--num_classes=7"], "--num_classes has no effect in exporting"),
        (["--to-safetensors", "--seed=0"], "--seed has no effect in exporting"),
        (["--module=a:b"], "--module has no effect in reading a weights file"),
        (["--which=best"], "--which chooses a checkpoint of a run"),
    ],
)
def test_flag_of_the_other_direction_is_refused(tmp_path, capsys, flags, message):
    code, out, err = run(capsys, tmp_path / "a", tmp_path / "b.safetensors", *flags)
    assert (code, out) == (2, "") and message in err


def test_damaged_description_is_one_line(finished, tmp_path, capsys):
    file = tmp_path / "student.safetensors"
    arrays = safetensors.numpy.load(export.to_safetensors(finished[0]))
    file.write_bytes(pretrained.dumps(arrays, {"at_jax": "{"}))
    code, out, err = run(capsys, file, tmp_path / "run", "--model=wrn_10_0.25")
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert "is damaged" in err and not (tmp_path / "run").exists()


PROGRAM = """
import sys
import numpy as np
from jax import export

with open(sys.argv[1], "rb") as file:
    network = export.deserialize(file.read())
assert network.platforms == ("cpu", "cuda", "tpu")
for images in np.load(sys.argv[2]).values():
    print(np.asarray(network.call(images)).tolist())
assert not [name for name in sys.modules if name.startswith(("at_jax", "flax"))]
"""


def test_exported_network_is_of_three_platforms_and_any_number_of_images(finished):
    exported = jax.export.deserialize(export.to_stablehlo(finished[0]))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    (images,), (logits,) = exported.in_avals, exported.out_avals
    assert (str(images.shape), str(logits.shape)) == ("(batch, 16, 16, 1)", "(batch, 10)")


@pytest.mark.slow  # two programs
def test_exported_network_runs_without_at_jax(finished, tmp_path, capsys):
    file = tmp_path / "student.stablehlo"
    code, _, err = run(capsys, finished[0], file, "--to-stablehlo")
    assert (code, err) == (0, "")
    # Batches of 1 and 3: their number is a symbol of the exported function.
    random = np.random.default_rng(0)
    batches = [random.uniform(0, 255, (n, 16, 16, 1)).astype(np.float32) for n in (1, 3)]
    np.savez(tmp_path / "images.npz", *batches)
    flags = "--xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(file), str(tmp_path / "images.npz")],
        cwd=tmp_path, env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    module, variables, described = open_run(finished[0])
    for images, line in zip(batches, done.stdout.splitlines(), strict=True):
        normalized = data.normalize(images, described["mean"], described["std"])
        expected = tiny.jit(module.apply)(variables, normalized)
        np.testing.assert_allclose(json.loads(line), expected, rtol=1e-4, atol=1e-4)


def test_module_of_the_weights_is_the_command(monkeypatch):
    monkeypatch.setattr(cli, "main", lambda name: {"weights": 7}[name])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("at_jax.models.pretrained", run_name="__main__")
    assert stopped.value.code == 7


def changed(name, value, dtype=np.float32):
    array = WEIGHTS[name].astype(dtype)
    array.flat[0] = value
    return WEIGHTS | {name: array}


def safe(header, content=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + content


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
SAFE = safetensors.numpy.save(WEIGHTS)
WITHOUT = {name: value for name, value in WEIGHTS.items() if "group1" not in name}
BAD_FILES = {
    "no safetensors": ("a.safetensors", b"<html>404 Not Found</html>", "not a complete safetensors file"),
    "empty": ("a.safetensors", b"", "not a complete safetensors file"),
    "truncated": ("a.safetensors", SAFE[:-1], "not a complete safetensors file"),
    "long header": ("a.safetensors", (2**62).to_bytes(8, "little") + b"{}", "not a complete safetensors"),
    "deep header": ("a.safetensors", safe(b"[" * 10**5), "not a complete safetensors file"),
    "overlap": ("a.safetensors", safe({"a": TENSOR, "b": TENSOR}, bytes(8)), "not a complete safetensors"),
    "huge": ("a.safetensors", safe({"a": TENSOR | {"shape": [2**40, 2**40]}}, bytes(8)), "not a complete"),
    "negative": ("a.safetensors", safe({"a": TENSOR | {"shape": [-2]}}, bytes(8)), "not a complete"),
    "dtype": ("a.safetensors", safe({"a": TENSOR | {"dtype": "F8_E4M3", "data_offsets": [0, 2]}}, b"00"),
              "a dtype that NumPy does not support"),
    "no pth": ("a.pth", SAFE, "it was not written by torch.save: .* whose name ends in .safetensors"),
    "code": ("a.pth", writer.legacy_file({"w": writer.Call("os", "system", ("touch made",))}, {}),
             "names os.system, which is not supported"),
    "nan": ("a.safetensors", safetensors.numpy.save(changed("conv0", np.nan)),
            "conv0 of .* has 1 of 432 values such as nan, expected finite"),
    "inf": ("a.safetensors", safetensors.numpy.save(changed("fc.bias", np.inf)), "such as inf"),
    "variance": ("a.safetensors", safetensors.numpy.save(changed("bn.running_var", -1)),
                 "such as -1.0, expected variances of at least 0"),
    "integers": ("a.safetensors", safetensors.numpy.save(changed("conv0", 1, np.int8)), "has dtype int8"),
    "missing": ("a.safetensors", safetensors.numpy.save(WITHOUT),
                r"missing group1([^,;]*, ){4}\S* and 6 more: give the weights of this network"),
    "unexpected": ("a.safetensors", safetensors.numpy.save(WEIGHTS | {"a\x1b": WEIGHTS["fc.bias"]}),
                   r"unexpected 'a\\x1b': give the weights"),
    "shape": ("a.safetensors", safetensors.numpy.save(WEIGHTS | {"bn.bias": np.zeros(3, np.float32)}),
              r"with bn.bias of shape \(3,\) instead of \(64,\)"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_file_is_one_line_and_nothing_is_written(
    name, content, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    pathlib.Path(name).write_bytes(content)
    code, out, err = run(capsys, name, "run", MODEL)
    assert (code, out) == (2, "") and err.startswith("error: ")
    assert len(err.splitlines()) == 1 and err[:-1].isprintable()
    assert re.search(message, err), err
    assert os.listdir() == [name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.pth", "run"], "there is no such file: give the path of one"),
        (["taken", "run"], "is a directory: give a weights file, or write the network of a run with"),
        (["wrn.pth", "taken"], "DEST .*taken exists already: choose another, or delete it"),
        (["wrn.pth", "wrn.pth"], "DEST .*wrn.pth exists already"),
        (["wrn.pth", "link"], "DEST .*link exists already"),
        (["wrn.pth", "wrn.pth/run"], "DEST .*run cannot be written"),
        (["wrn.pth", "gs://bucket/run"], "DEST must be a local path|needs gcsfs"),
        (["wrn.pth", "run", "--model=resnet_18"], "does not fit ResNet-18 with 5 classes: missing"),
        (["wrn.pth", "run", "--model=nin_thin"], "can be read for ResNet, WideResNet.*, got NIN"),
        (["wrn.pth", "run", "--model=resnet_19"], "depth of a ResNet must be one of"),
        (["wrn.pth", "run", "--num_classes=1"], "--num_classes must be within 2..100000, got 1"),
        (["wrn.pth", "run", "--seed=-1"], "--seed must be within 0..4294967295"),
        (["wrn.pth", "run", "--image_size=1"], "--image_size must be within 8..4096"),
        (["wrn.pth", "run", "--resize=30"], "--resize must be at least the image size, 32, got 30"),
        (["wrn.pth", "run", "--mean", "0.5", "0.5", "0.5"], "for pixels in 0..1: multiply"),
        (["wrn.pth", "run", "--mean", "40", "40"], "mean must have a number for each of the 3 ch"),
        (["wrn.pth", "run", "--std", "0.01", "1", "1"], "--std must be within 0.1..255"),
        (["wrn.pth", "run", "--class_names=none.txt"], "--class_names: 'none.txt' cannot be read"),
        (["wrn.pth", "run", "--class_names=wrn.pth"], "cannot be read .it is not UTF-8"),
        (["wrn.pth", "run", "--class_names=names.txt"], "5 classes must have as many class names, got 2"),
        (["wrn.pth", "run", "--class_names=blank.txt"], "a name in each line, got none in line 2"),
        (["wrn.pth"], "required: DEST"),
        (["taken", "f.pth", "--to-safetensors"], "DEST must end in .safetensors, got f.pth: rename"),
        (["wrn.pth", "run", "--num_clases=3"], "'--num_clases=3': did you mean --num_classes?"),
        (["taken", "f", "--to-safetensors", "--to-stablehlo"], "write one file each: pass one of them"),
        (["taken", "empty.safetensors", "--to-safetensors"], "DEST .*empty.safetensors exists already"),
        (["taken", "f.safetensors", "--to-safetensors"], "taken holds no checkpoints: give the workdir"),
        (["wrn.pth", "f", "--to-stablehlo"], "wrn.pth is a file: give the workdir of a run"),
    ],
)  # fmt: skip
def test_mistake_is_one_line_and_nothing_is_written(
    arguments, message, source, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    (tmp_path / "empty.safetensors").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    (tmp_path / "blank.txt").write_text("one\n \ntwo\n")
    before = sorted(tmp_path.rglob("*"))
    exports = any(each.startswith("--to") for each in arguments)
    code, out, err = run(capsys, *([] if exports else [MODEL]), *arguments)
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert re.search(message, err), err
    assert sorted(tmp_path.rglob("*")) == before


def test_image_size_that_is_too_small_for_the_network_is_refused(tmp_path, capsys):
    weights = networks.generated(networks.resnet_shapes(18, 5))
    safetensors.numpy.save_file(weights, tmp_path / "resnet.safetensors")
    code, _, err = run(capsys, tmp_path / "resnet.safetensors", tmp_path / "run", "--image_size=8")
    assert code == 2 and "--image_size must suit the network: ResNet-18 needs images of" in err
    assert not (tmp_path / "run").exists()


def test_run_that_cannot_be_written_leaves_nothing(source, tmp_path, capsys, monkeypatch):
    def full(self, *_):
        (self._directory / "0").mkdir()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._directory))

    monkeypatch.setattr(Checkpoints, "save", full)
    code, _, err = run(capsys, source, tmp_path / "new" / "run", MODEL)
    assert code == 2 and "cannot be written (No space left on device)" in err
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("package", "flag", "extra"),
    [
        ("flatbuffers", "--to-stablehlo", "export"),
        ("safetensors", "--to-safetensors", "pretrained"),
    ],
)
def test_missing_package_of_an_export_names_its_extra(
    package, flag, extra, finished, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = run(capsys, finished[0], tmp_path / "file.safetensors", flag)
    assert code == 2 and err.endswith(f'not installed: pip install "at_jax[{extra}]"\n')
    assert not list(tmp_path.iterdir())


def test_network_without_names_in_pytorch_is_not_converted():
    with pytest.raises(UserError, match="got NIN: export it with --to-stablehlo"):
        pretrained.state_dict({}, models.build("nin_thin", 3))
