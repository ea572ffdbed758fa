"""Whole runs on photographs that are streamed: kill and resume, several processes, memory."""

import importlib.util
import json
import os
import signal
import subprocess
import sys

import commands
import jax
import numpy as np
import pytest
import small_run
from PIL import Image

from at_jax import checkpoint, data, loop
from at_jax.training import config as configs

WORKERS = [-1, pytest.param(2, marks=pytest.mark.skipif(
    importlib.util.find_spec("grain") is None, reason="Grain is not installed"))]  # fmt: skip


def make_folder(root, train, test=2, side=48):
    """JPEG files of two classes, which differ by brightness."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for name, level in (("bright", 170), ("dark", 60)):
            directory = root / split / name
            directory.mkdir(parents=True)
            for index in range(count):
                shape = (side, side + index % 9, 3)
                pixels = (level + rng.integers(-50, 50, shape)).astype(np.uint8)
                Image.fromarray(pixels).save(directory / f"{index}.jpg")
    return root


def keys_of(folder, **changes):
    """Keys of a small run on photographs."""
    return {
        "student": "wrn_10_0.25", "method": "none", "epochs": 3, "batch_size": 4,
        "data.source": "folder", "data.data_dir": str(folder), "data.image_size": 16,
        "data.augmentation": "random_resized_crop", "data.color_jitter": 0.4,
        "data.memory_limit_mb": 0, "optimizer.drop_epochs": (), "runtime.figures": False,
        "runtime.tensorboard": False, "runtime.devices": 2,
    } | changes  # fmt: skip


def command(keys, workdir):
    flags = [f"--config.{key}={value}" for key, value in keys.items()]
    return ("-m", "at_jax", "train", "--config=folder", *flags, f"--workdir={workdir}")


@pytest.mark.slow
def test_streamed_run_says_so_and_resumes_within_an_epoch(tmp_path, compiled_once, monkeypatch):
    folder = make_folder(tmp_path / "pictures", 6)
    lines = []
    monkeypatch.setattr("at_jax.training.description.log", lines.append)
    config = configs.default_config()
    config.update_from_flattened_dict(keys_of(folder, epochs=2))
    config.runtime.compilation_cache = ""
    loop.train_and_evaluate(config, tmp_path / "whole")
    assert any(
        "  streamed: training images are decoded during training, by threads (0 MiB, more than "
        "data.memory_limit_mb=0)" in line for line in lines
    )  # fmt: skip

    stopped, taken = tmp_path / "stopped", data.Stream.batch

    def batch(stream, step):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return taken(stream, step)

    with monkeypatch.context() as patch:
        patch.setattr(data.Stream, "batch", batch)
        with pytest.raises(loop.Interrupted, match="Stopped after step 5 of 6"):
            loop.train_and_evaluate(config, stopped)
    loop.train_and_evaluate(config, stopped)
    assert small_run.lines_of(stopped) == small_run.lines_of(tmp_path / "whole")
    described = json.loads((stopped / "config.json").read_text())["data"]
    assert described["augmentation"] == "random_resized_crop"


@pytest.mark.slow
@pytest.mark.parametrize("workers", WORKERS)
def test_streamed_run_that_is_killed_resumes_with_the_same_numbers(workers, tmp_path, compiled):
    folder = make_folder(tmp_path / "pictures", 40)
    keys = keys_of(folder, **{"data.workers": workers, "method": "at", "teacher.epochs": 1,
                              "teacher.model": "wrn_10_0.25"})  # fmt: skip
    environment = commands.environment(compiled)
    ((code, _, err),) = commands.run(environment, command(keys, tmp_path / "whole"))
    assert code == 0, err
    keys |= {"teacher.checkpoint": str(tmp_path / "whole" / "teacher")}
    workdir = tmp_path / "killed"
    (process,) = commands.start(commands.held(environment, workdir, 2), command(keys, workdir))
    commands.wait_until(lambda: small_run.count_lines(workdir), process)
    process.kill()
    process.communicate()
    assert not (workdir / "result.json").exists()
    ((code, _, err),) = commands.run(environment, command(keys, workdir))
    assert code == 0, err
    assert small_run.lines_of(workdir) == small_run.lines_of(tmp_path / "whole")
    ends = [checkpoint.load(tmp_path / name)[1] for name in ("whole", "killed")]
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, *ends)))


_PEAK = """
import json, resource, sys
import flax.linen as nn
import jax.numpy as jnp
from at_jax import loop
from at_jax.training import config as configs


class Cheap(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(4, (16, 16), strides=16)(images))
        return nn.Dense(2)(jnp.mean(x, axis=(1, 2)))


config = configs.default_config()
config.update_from_flattened_dict(json.loads(sys.argv[1]))
loop.train_and_evaluate(config, sys.argv[2], student=Cheap())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_size_of_a_streamed_set(tmp_path, compiled):
    # 128x128x3 bytes each: 4 and 16 times data.memory_limit_mb.
    few = make_folder(tmp_path / "few", 4 * 8 * 2**20 // (2 * 128 * 128 * 3), 8)
    many = tmp_path / "many"
    for path in few.glob("*/*/*"):
        copies = 4 if path.parts[-3] == "train" else 1
        for copy in range(copies):
            link = many / path.relative_to(few).with_name(f"{copy}-{path.name}")
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)
    peaks = []
    # The first run compiles, which takes memory too.
    for place, folder in enumerate((few, few, many)):
        keys = keys_of(folder, **{"data.image_size": 128, "data.memory_limit_mb": 8, "epochs": 1,
                                  "batch_size": 32})  # fmt: skip
        program = [
            sys.executable,
            "-c",
            _PEAK,
            json.dumps(keys),
            str(tmp_path / f"run {place}"),
        ]
        environment = commands.environment(compiled) | {"XDG_CACHE_HOME": str(tmp_path)}
        done = subprocess.run(program, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peaks.append(float(done.stdout.split()[-1]))
    assert peaks[2] - peaks[1] < 48, peaks  # MiB; the images grew by 96
