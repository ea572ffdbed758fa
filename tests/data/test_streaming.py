"""Streams: the batches of TrainBatches, decoded ahead in threads or in Grain's worker processes."""

import multiprocessing
import os
import pickle
import signal

import numpy as np
import pytest

from at_jax import data
from at_jax.data import load, streaming, workers
from at_jax.data.streaming import Stream
from at_jax.errors import UserError
from at_jax.training.components.datasets import streaming_line
from at_jax.training.settings import DataSettings

OPTIONS = {"image_size": 8, "resize": 9, "random_crop": True}


def assert_same(found, expected):
    for key in expected:
        np.testing.assert_array_equal(found[key], expected[key], err_msg=key)


def test_random_crops_are_a_function_of_seed_step_and_position(photographs, folder):
    batches = [photographs.batch(step) for step in range(4)]
    again = load("folder", data_dir=str(folder), memory_limit_mb=0, **OPTIONS)
    resumed = data.TrainBatches(again.train, 4, seed=3, random_crop=True)
    for step in (3, 0):
        assert_same(resumed.batch(step), batches[step])
        parts = [resumed.batch(step, (index, 2)) for index in range(2)]
        whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        assert_same(whole, batches[step])
    # Each epoch of 2 steps has every image once, and another part of it.
    images = np.concatenate([batch["image"] for batch in batches])
    assert len({image.tobytes() for image in images}) == 16
    order = np.concatenate([photographs.indices(step) for step in range(4)])
    assert sorted(order[:8]) == sorted(order[8:]) == list(range(8))
    other = data.TrainBatches(again.train, 4, seed=4, random_crop=True)
    assert not np.array_equal(other.batch(0)["image"], batches[0]["image"])
    # Without crops, the same set gives the images as they are evaluated.
    plain = data.TrainBatches(again.train, 4, seed=3).batch(0)
    np.testing.assert_array_equal(plain["label"], batches[0]["label"])
    np.testing.assert_array_equal(plain["image"], again.train.take(order[:4])[0])


def test_random_crops_of_images_in_memory_keep_their_size():
    digits = data.load("digits").train.select(np.arange(6))
    batch = data.TrainBatches(digits, 6, seed=0, random_crop=True).batch(0)
    assert batch["image"].shape == (6, 16, 16, 1)
    original = digits.images[data.TrainBatches(digits, 6, seed=0).indices(0)]
    assert all((a != b).any() for a, b in zip(batch["image"], original, strict=True))


@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
def test_stream_in_threads_gives_the_batch_of_every_step(photographs, shard):
    stream = Stream(photographs, shard)
    for step in (0, 1, 2, 5, 6, 1):  # a resumed run begins at any step
        assert_same(stream.batch(step), photographs.batch(step, shard))
    stream.close()
    assert_same(stream.batch(2), photographs.batch(2, shard))
    stream.close()


def test_stream_gives_the_smaller_last_batch_of_an_epoch(photographs):
    batches = data.TrainBatches(
        photographs.split, 3, seed=3, random_crop=True, drop_last=False
    )  # 3, 3, 2
    stream = Stream(batches)
    for step in (0, 1, 2, 3, 5):
        assert_same(stream.batch(step), batches.batch(step))
    assert len(stream.batch(2)["image"]) == 2
    stream.close()
    # What a worker process decodes: more chunks than the last batch has images.
    chunks = streaming._Chunks(batches, (0, 1), parts=3, first=1)
    for step in range(3):
        images = [chunks[3 * step + part]["image"] for part in range(3)]
        np.testing.assert_array_equal(np.concatenate(images), batches.batch(1 + step)["image"])
    with pytest.raises(UserError, match="count dividing the batch of 3"):
        Stream(batches, (0, 2))
    even = data.TrainBatches(photographs.split, 6, seed=3, random_crop=True, drop_last=False)
    with pytest.raises(UserError, match="count dividing the batch of 2"):
        Stream(even, (0, 3))  # at once, not at the end of the first epoch


def test_stream_of_images_in_memory_starts_nothing(make_dataset):
    batches = data.TrainBatches(make_dataset().train, 4, seed=0)
    stream = Stream(batches, workers=2)
    assert_same(stream.batch(5), batches.batch(5))
    assert stream._reader is None


def test_streaming_line_says_who_decodes_and_why(photographs, monkeypatch):
    def line(batches=photographs, **settings):
        return streaming_line(batches, DataSettings(**settings))

    assert line(augmentation="random_resized_crop") == (
        "streamed: training images are decoded during training, by threads "
        "(data.augmentation=random_resized_crop)"
    )
    monkeypatch.setattr(workers, "_is_installed", lambda: True)
    assert line(memory_limit_mb=0, workers=2).endswith(
        "by 2 worker processes (0 MiB, more than data.memory_limit_mb=0)"
    )
    assert line(memory_limit_mb=0, workers=1).count("by 1 worker process (") == 1
    held = data.TrainBatches(data.load("digits").train, 4, seed=0)
    assert line(held, workers=2) == ""


def test_tfds_reader_of_photographs_works_in_another_process(shapes):
    options = {"name": "shapes", "data_dir": shapes, **OPTIONS}
    dataset = load("tfds", **options)
    assert dataset.image_shape == (8, 8, 3) and not isinstance(dataset.train.images, np.ndarray)
    assert isinstance(dataset.test.images, np.ndarray) and dataset.resize == 9
    batches = data.TrainBatches(dataset.train, 4, seed=0, random_crop=True)
    reader = dataset.train.images.examples.read
    sent = pickle.loads(pickle.dumps(reader))
    assert sent.source is None  # the file is opened again
    indices, crop = np.array([2, 0]), data.crops.RandomResizedCrop((8, 8), (7,))
    for (a, label_a), (b, label_b) in zip(
        sent(indices, [crop] * 2), reader(indices, [crop] * 2), strict=True
    ):
        np.testing.assert_array_equal(a, b)
        assert label_a == label_b
    assert len({image.tobytes() for s in range(4) for image in batches.batch(s)["image"]}) == 16


@pytest.mark.slow
def test_stream_in_processes_equals_threads_and_ends(photographs, folder):
    pytest.importorskip("grain")
    stream = Stream(photographs, workers=2)
    for step in (1, 2, 3):
        assert_same(stream.batch(step), photographs.batch(step))
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    stream.close()
    for each in workers:
        each.join()  # they end, though perhaps not at once

    # Seven images and one: fewer than the chunks of a batch.
    uneven = data.TrainBatches(photographs.split, 7, seed=3, random_crop=True, drop_last=False)
    other = Stream(uneven, workers=2)
    for step in (0, 1, 2):
        assert_same(other.batch(step), uneven.batch(step))
    other.close()

    # An image that is deleted while training is the error of its batch, in one line.
    (folder / "train" / "bright" / "0.png").unlink()
    with pytest.raises(UserError, match="0.png: expected a readable JPEG.*No such file") as error:
        for step in range(2):
            stream.batch(step)
    assert "\n" not in str(error.value)
    stream.close()

    # So is a worker that was killed.
    (folder / "train" / "bright" / "0.png").write_bytes(
        (folder / "train" / "bright" / "3.png").read_bytes()
    )
    stream.batch(0)
    for each in multiprocessing.active_children():
        os.kill(each.pid, signal.SIGKILL)
    with pytest.raises(UserError, match="expected images from a worker process, got .*-9"):
        for step in range(1, 20):
            stream.batch(step)
    stream.close()
