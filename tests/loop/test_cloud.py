"""Runs in cloud storage: everything but Orbax's own driver in memory, and whole runs in an emulator."""

import pathlib
import re

import jax
import numpy as np
import pytest
import small_run
import storage
from PIL import Image

from at_jax import checkpoint, data, loop, paths
from at_jax.errors import UserError
from at_jax.figures import command as figures
from at_jax.tables import command as tables
from at_jax.training import preparation
from at_jax.training.files import run_files

RUN = "gs://bucket/run"


@pytest.fixture(autouse=True)
def no_folder_is_named_like_a_scheme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.glob("*:*"))


def test_run_files_are_written_and_read(in_memory):
    workdir = paths.parse(RUN)
    config = small_run.config().to_dict()
    assert not run_files.has_config(workdir) and run_files.read_result(workdir) is None
    run_files.claim(workdir, config)
    run_files.claim(workdir, config)
    for step in (1, 2, 3):
        run_files.append_metrics(workdir, {"step": step, "loss": float("nan")})
    assert [line["step"] for line in run_files.keep_metrics(workdir, 2)] == [1, 2]
    assert run_files.read_metrics(workdir)[-1] == {"step": 2, "loss": None}
    run_files.write_json(workdir / run_files.RESULT, {"test_error": 1.0})
    assert run_files.has_result(workdir)
    run_files.drop_result(workdir)
    run_files.drop_result(workdir)
    assert run_files.read_config(workdir)["method"] == "at" and not run_files.has_result(workdir)
    with pytest.raises(UserError, match="holds a run with another config"):
        run_files.check(workdir, {**config, "seed": 7})


def test_run_in_s3_is_loaded_and_drawn(finished, in_memory):
    url = "s3://bucket/run"
    storage.upload(finished[0], paths.parse(url))
    local, remote = checkpoint.load(finished[0]), checkpoint.load(url)
    jax.tree.map(np.testing.assert_array_equal, local[1], remote[1])
    assert figures.main(["curves", url, "--out=s3://bucket/new/curves.png"]) == 0
    with paths.parse("s3://bucket/new/curves.png").open("rb") as file:
        assert Image.open(file).format == "PNG"


def test_image_folder_in_s3_equals_the_local_one(in_memory, tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in "ab":
            for index in range(3):
                path = tmp_path / "pictures" / split / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(path)
    (tmp_path / "pictures/train/b/more/deeper").mkdir(parents=True)
    path = tmp_path / "pictures/train/b/more/deeper/x"  # nested, and without a suffix
    Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(path, "PNG")
    (tmp_path / "pictures/train/b/more/.DS_Store").write_bytes(b"\0")
    (tmp_path / "pictures/train/b/words.txt").write_text("words")
    storage.upload(tmp_path / "pictures", paths.parse("s3://bucket/pictures"))
    found = data.load("folder", data_dir="s3://bucket/pictures")
    local = data.load("folder", data_dir=str(tmp_path / "pictures"))
    assert found.name == "pictures" and found.class_names == local.class_names
    assert found.notes == local.notes == ("train: skipped 1 file: 1 is text",)
    lazy = data.load("folder", data_dir="s3://bucket/pictures", memory_limit_mb=0)
    for split, count in (("train", 7), ("test", 6)):
        for other in (found, lazy):
            for ours, theirs in zip(
                *(getattr(d, split).take(np.arange(count)) for d in (other, local)), strict=True
            ):
                np.testing.assert_array_equal(ours, theirs)
    paths.parse("s3://bucket/pictures/test/a/0.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"image s3://bucket/pictures/test/a/0\.png: expected"):
        data.load("folder", data_dir="s3://bucket/pictures", memory_limit_mb=0)


@pytest.mark.parametrize(
    ("workdir", "message"),
    [
        ("s3://bucket/run", r"the installed Orbax \(.*\) cannot save checkpoints there"),
        ("gs:/run", "cannot use the path 'gs:/run'.*begin with gs://"),
        (pathlib.Path("gs://bucket/run"), "begin with gs://"),
        ("hdfs://cluster/run", "cannot use the path 'hdfs://cluster/run'"),
    ],
)
def test_unsupported_workdir_is_one_line_before_anything_is_built(
    workdir, message, in_memory, monkeypatch
):
    monkeypatch.setattr(preparation, "load_dataset", None)
    config = small_run.config(method="none")
    with pytest.raises(UserError, match=message) as caught:
        loop.train_and_evaluate(config, workdir)
    with pytest.raises(UserError, match=message):
        loop.train_together([(config, workdir)])
    assert "\n" not in str(caught.value)
    assert not in_memory.store


def test_unsupported_path_of_a_config_is_one_line(in_memory):
    for key, value in (
        ("teacher__checkpoint", "hdfs://cluster/run"),
        ("data__data_dir", "gs:/pictures"),
        ("runtime__compilation_cache", "gs:cache"),
    ):
        source = "folder" if key.startswith("data") else "digits"
        config = small_run.config(**{key: value, "data__source": source})
        with pytest.raises(UserError, match=f"cannot use the path '{value}'"):
            loop.train_and_evaluate(config, "run")
    assert not pathlib.Path("run").exists()


def test_prepared_set_in_cloud_storage_is_one_line(in_memory):
    with pytest.raises(
        UserError, match=r"'cifar10': expected a local data.data_dir.*gs://bucket/data"
    ):
        data.load("tfds", name="cifar10", data_dir="gs://bucket/data")


def test_profile_in_cloud_storage_is_one_line(in_memory):
    with pytest.raises(UserError, match=f"--profile: .* local directories only, got {RUN}"):
        loop.train_and_evaluate(small_run.config(), RUN, profile=True)
    assert not in_memory.store


@pytest.mark.parametrize("function", [loop.evaluate, lambda _, workdir: checkpoint.load(workdir)])
def test_missing_run_in_cloud_storage_is_one_line(function, in_memory):
    with pytest.raises(UserError, match=f"{RUN} holds no checkpoints"):
        function(small_run.config(), RUN)


def test_figures_of_an_unsupported_path_exit_with_2(in_memory, capsys):
    for arguments in (
        ["curves", "hdfs://x/run", "--out=a.png"],
        ["curves", "run", "--out=gs:/a.png"],
    ):
        assert figures.main(arguments) == 2
        assert re.fullmatch("error: cannot use the path .*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=hdfs://x/table"], "cannot use the path"),
        (["--out=s3://bucket/table"], "cannot save checkpoints there"),
        (["--out=gs://bucket/table", "--shard=1/2"], "--shard 1/2: shards need file locks"),
        (
            ["--out=gs://bucket/table", "--data=gs://bucket/none"],
            "'gs://bucket/none', which does not exist",
        ),
    ],
)
def test_tables_with_an_unsupported_path_exit_with_2(arguments, message, in_memory, capsys):
    assert tables.main(["digits", *arguments]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and message in printed and printed.count("\n") == 1
    assert not in_memory.store
