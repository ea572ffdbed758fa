"""Estimates of memory, before anything is read."""

import numpy as np
import pytest

from at_jax.data import Split, TrainBatches, load, memory
from at_jax.errors import UserError


@pytest.fixture
def small_machine(monkeypatch):
    """16 MiB of memory."""
    monkeypatch.setattr(memory, "available", lambda: 2**24)


def test_available_is_the_least_of_machine_container_and_limit(monkeypatch):
    assert memory.available() > 2**20
    files = {
        "/proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n",
        "/sys/fs/cgroup/memory.max": "5000000\n",
        "/sys/fs/cgroup/memory.stat": "anon 1000000\nfile 3000000\n",
    }
    monkeypatch.setattr(memory, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(memory, "_of_limit", lambda: None)
    assert memory.available() == 4_000_000
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert memory.available() == 8_192_000
    monkeypatch.setattr(memory, "_of_limit", lambda: 77)
    assert memory.available() == 77


@pytest.mark.parametrize("size", [100_000, 2**31, 2**70])
def test_images_that_cannot_fit_are_refused_before_any_is_read(size, tmp_path, small_machine):
    for source in ("digits", "folder", "tfds"):
        with pytest.raises(UserError, match=rf"image_size {size}: .*got .*iB: choose a smaller"):
            load(source, name=source if source == "digits" else "x",
                 data_dir=str(tmp_path), image_size=size)  # fmt: skip


def test_digits_that_do_not_fit_are_refused(small_machine):
    with pytest.raises(
        UserError, match="image_size 100: memory for 1,797 images: .*16 MiB.*18 MiB"
    ):
        load("digits", image_size=100)


def test_data_set_that_does_not_fit_is_refused_or_read_lazily(small_machine, folder):
    options = {"data_dir": str(folder), "image_size": 800}  # 12 images of 1.9 MB
    match = r"data set 'pictures': memory for 12 images of 800x800x3 .*16 MiB.*22 MiB: .*memory_limit_mb"
    with pytest.raises(UserError, match=match):
        load("folder", **options)
    assert load("folder", **options, memory_limit_mb=20).image_shape == (800, 800, 3)


def test_batch_that_does_not_fit_is_refused(small_machine):
    split = Split(np.zeros((10, 1000, 1000, 1), np.uint8), np.zeros(10, np.int32))
    assert TrainBatches(split, 10, seed=0).steps_per_epoch == 1
    split = Split(np.zeros((10, 1000, 1000, 3), np.uint8), np.zeros(10, np.int32))
    with pytest.raises(UserError, match="batch_size 10: memory for a batch of images .*got 29 MiB"):
        TrainBatches(split, 10, seed=0)
