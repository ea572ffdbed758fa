"""Training batches by (seed, step), and evaluation batches that cover every example once."""

import numpy as np
import pytest

from at_jax.data import Split, TrainBatches, eval_batches
from at_jax.errors import UserError


def make(count):
    images = np.arange(count * 4, dtype=np.uint8).reshape(count, 2, 2, 1)
    return Split(images, np.arange(count, dtype=np.int32))


def test_train_batches_epoch_visits_an_example_at_most_once():
    batches = TrainBatches(make(11), 3, seed=0)
    assert batches.steps_per_epoch == 3
    epochs = [[batches.indices(epoch * 3 + s) for s in range(3)] for epoch in range(2)]
    for epoch in epochs:
        assert len(set(np.concatenate(epoch).tolist())) == 9
    assert not np.array_equal(np.concatenate(epochs[0]), np.concatenate(epochs[1]))
    assert batches.indices(0).dtype == np.int64


def test_train_batches_of_a_longer_epoch_repeat_the_examples_evenly():
    batches = TrainBatches(make(5), 4, seed=0, epoch_examples=22)
    assert batches.steps_per_epoch == 5  # 22 // 4
    epoch = np.concatenate([batches.indices(step) for step in range(5)])
    for first in range(0, 20, 5):  # four passes
        assert sorted(epoch[first : first + 5]) == list(range(5))
    assert not np.array_equal(epoch[:5], epoch[5:10])
    shorter = TrainBatches(make(5), 2, seed=0, epoch_examples=3)
    assert shorter.steps_per_epoch == 1
    with pytest.raises(UserError, match="epoch_examples: expected 0, or at least the batch size 4"):
        TrainBatches(make(5), 4, seed=0, epoch_examples=3)


def test_train_batches_that_keep_the_last_one_visit_every_example():
    batches = TrainBatches(make(11), 4, seed=0, drop_last=False)
    assert batches.steps_per_epoch == 3 and batches.last_size == 3
    assert [batches.size(step) for step in range(6)] == [4, 4, 3, 4, 4, 3]
    for first in (0, 3):
        epoch = [batches.batch(first + step) for step in range(3)]
        assert sorted(np.concatenate([each["label"] for each in epoch])) == list(range(11))
        assert epoch[2]["position"].tolist() == [0, 1, 2] and len(epoch[2]["image"]) == 3
    # The full batches are those of a run that drops the rest.
    dropping = TrainBatches(make(11), 4, seed=0)
    assert np.array_equal(dropping.indices(3), batches.indices(4))  # the second of epoch 1
    parts = [batches.batch(2, shard=(index, 3))["label"] for index in range(3)]
    assert np.array_equal(np.concatenate(parts), batches.batch(2)["label"])
    with pytest.raises(UserError, match="count dividing the batch of 3, got"):
        batches.batch(2, shard=(0, 2))
    # Without a rest there is none; a longer epoch repeats the examples up to its own end.
    assert TrainBatches(make(12), 4, seed=0, drop_last=False).steps_per_epoch == 3
    longer = TrainBatches(make(5), 4, seed=0, epoch_examples=7, drop_last=False)
    assert [len(longer.indices(step)) for step in range(2)] == [4, 3]


def test_equal_steps_end_before_the_last_batch_and_after_it():
    batches = TrainBatches(make(11), 3, seed=0, drop_last=False)  # 3, 3, 3, 2
    assert [batches.equal_steps(step, 2) for step in range(5)] == [2, 2, 1, 1, 2]
    assert [batches.equal_steps(step, 9) for step in range(5)] == [3, 2, 1, 1, 3]
    assert TrainBatches(make(11), 3, seed=0).equal_steps(2, 9) == 9


def test_train_batches_resumed_give_the_same_batch():
    split = make(20)
    forward = TrainBatches(split, 4, seed=7)
    seen = [forward.batch(step) for step in range(15)]
    for step in (14, 3, 0, 9):  # a new object at any step, as after a resume
        resumed = TrainBatches(split, 4, seed=7).batch(step)
        assert all(np.array_equal(resumed[key], seen[step][key]) for key in resumed)
        again = forward.batch(step)
        assert np.array_equal(again["label"], seen[step]["label"])
    assert not np.array_equal(TrainBatches(split, 4, seed=8).indices(0), forward.indices(0))


def test_batch_has_images_labels_and_positions():
    split = make(9)
    batch = TrainBatches(split, 4, seed=0).batch(1)
    assert {key: value.dtype.name for key, value in batch.items()} == {
        "image": "uint8",
        "label": "int32",
        "position": "int32",
    }
    assert batch["image"].shape == (4, 2, 2, 1) and batch["position"].tolist() == [0, 1, 2, 3]
    assert np.array_equal(batch["image"], split.images[batch["label"]])  # label = index here


def test_batch_shards_concatenate_to_the_global_batch():
    batches = TrainBatches(make(16), 6, seed=0)
    parts = [batches.batch(1, shard=(index, 3)) for index in range(3)]
    whole = batches.batch(1)
    for key in whole:
        assert np.array_equal(np.concatenate([part[key] for part in parts]), whole[key])


@pytest.mark.parametrize("shard", [(0, 4), (3, 3), (-1, 3), (0, 0)])
def test_batch_with_an_invalid_shard_raises(shard):
    with pytest.raises(UserError, match="count dividing the batch of 6"):
        TrainBatches(make(16), 6, seed=0).batch(0, shard)


def test_smaller_last_batch_that_cannot_be_divided_names_its_keys():
    batches = TrainBatches(make(16), 6, seed=0, drop_last=False, epoch_examples=15)
    batches.batch(0, (0, 2))
    with pytest.raises(UserError, match="batch of 3, .*drop_last=True, or change epoch_examples"):
        batches.batch(2, (0, 2))


def test_train_batches_with_invalid_arguments_raise():
    with pytest.raises(UserError, match=r"expected 1 to 5 .*, got 6"):
        TrainBatches(make(5), 6, seed=0)
    for wrong in (0, 1.5):
        with pytest.raises(UserError, match=f"an integer of 1 or more, got {wrong}"):
            TrainBatches(make(5), wrong, seed=0)
    with pytest.raises(UserError, match="step: expected 0 or more, got -1"):
        TrainBatches(make(5), 2, seed=0).batch(-1)
    with pytest.raises(UserError, match="seed: expected 0 or more, got -1"):
        TrainBatches(make(5), 1, seed=-1)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 25])
def test_eval_batches_cover_every_example_once(batch_size):
    split = make(10)
    batches = list(eval_batches(split, batch_size))
    assert len(batches) == -(-10 // batch_size)
    for batch in batches:
        assert batch["image"].shape == (batch_size, 2, 2, 1)
        assert batch["weight"].dtype == np.float32 and batch["label"].dtype == np.int32
        # Padding repeats real examples, image and label together.
        assert np.array_equal(batch["image"], split.images[batch["label"]])
    weight = np.concatenate([batch["weight"] for batch in batches])
    label = np.concatenate([batch["label"] for batch in batches])
    assert label[weight == 1].tolist() == list(range(10)) and weight.sum() == 10


def test_eval_batches_with_an_empty_batch_raise_at_the_call():
    with pytest.raises(UserError, match="an integer of 1 or more, got 0"):
        eval_batches(make(3), 0)


@pytest.mark.parametrize("count", [2, 3])
def test_eval_batches_shards_concatenate_to_the_whole(count):
    split, size = make(13), 6  # the last of three batches has one example: some shards are padding
    whole = list(eval_batches(split, size))
    parts = [list(eval_batches(split, size, (index, count))) for index in range(count)]
    for batch, *pieces in zip(whole, *parts, strict=True):
        for name in batch:
            together = np.concatenate([piece[name] for piece in pieces])
            np.testing.assert_array_equal(together, batch[name])
    with pytest.raises(UserError, match="count dividing the batch of 6, got"):
        eval_batches(split, size, (0, 4))
