"""Runs that keep the last, smaller batch of an epoch."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_run
from own_modules import Tapped

from at_jax import checkpoint, data, loop
from at_jax.errors import UserError
from at_jax.training import preparation, step, trainer
from at_jax.training.components.arguments import Arguments
from at_jax.training.config import order_seed, settings_of
from at_jax.training.device_choice import devices_of
from at_jax.training.evaluation import Evaluation
from at_jax.training.resume import initial_state

# 60 images, 6 of each class: two batches of 24 and one of 12 in an epoch.
KEYS = {
    "method": "none", "batch_size": 24, "data__drop_last": False, "data__pad_mode": "zero",
    "data__pad": 2, "runtime__tensorboard": False,
}  # fmt: skip


class FakeSteps:
    """In place of the compiled steps: the loss of an example is its label.

    Attributes:
      shapes: (devices, steps, images of a device and step) of each call.
    """

    def __init__(self):
        self.shapes = []

    def __call__(self, states, frozen, key, batches):
        labels = batches["label"]
        assert batches["image"].shape[:3] == batches["position"].shape == labels.shape
        self.shapes.append(labels.shape)
        sums = np.sum(labels, axis=(0, 2)).astype(np.float32)
        measured = {"loss": (sums, np.full_like(sums, labels.shape[0] * labels.shape[2]))}
        measured["error"] = measured["loss"]
        return (states[0].replace(step=states[0].step + len(sums)),), (measured,)


@pytest.fixture
def fake_steps(monkeypatch):
    """Replaces training and evaluation; nothing compiles but the initialization."""
    fake = FakeSteps()
    monkeypatch.setattr(trainer.devices, "map_train", lambda *_: fake)
    evaluated = Evaluation({"test_error": 50.0}, information=1.0)
    monkeypatch.setattr(trainer, "evaluator", lambda *_: lambda *_: evaluated)
    return fake


def test_every_image_of_an_epoch_is_trained_on_once(fake_steps, tmp_path, capsys, compiled_once):
    config = small_run.config(**KEYS, runtime__steps_per_dispatch=10, runtime__devices=2)
    with pytest.MonkeyPatch.context() as patch:
        asked = iter([False] + [True] * 9)
        patch.setattr(trainer, "interruptible", lambda: _Context(lambda: next(asked)))
        with pytest.raises(loop.Interrupted, match="after step 2 of 6"):
            loop.train_and_evaluate(config, tmp_path, student=Tapped())
    loop.train_and_evaluate(config, tmp_path, student=Tapped())
    # One call for the full batches of an epoch, and one for the last; a resumed run begins with that.
    assert fake_steps.shapes == [(2, 2, 12), (2, 1, 6), (2, 2, 12), (2, 1, 6)]
    lines = small_run.lines_of(tmp_path)
    assert [line["step"] for line in lines] == [3, 6]
    # The rate drops at the start of epoch 1, counted from 0: after three steps.
    assert [line["learning_rate"] for line in lines] == pytest.approx([0.1, 0.02])
    # 6 images of each class: the mean over the images. That of the batches' means would be another.
    assert [line["loss"] for line in lines] == pytest.approx([4.5, 4.5])
    assert "2 epochs of 3 steps, the last with 12 images, on 2 x" in capsys.readouterr().out


class _Context:
    def __init__(self, value):
        self.value = value

    def __enter__(self):
        return self.value

    def __exit__(self, *_):
        pass


def batches_of(images, size):
    split = data.Split(np.zeros((images, 2, 2, 1), np.uint8), np.zeros(images, np.int32))
    return data.TrainBatches(split, size, seed=0, drop_last=False)


def settings(**changes):
    return settings_of(small_run.config(batch_size=24, data__drop_last=False, **changes))


def test_devices_divide_the_last_batch_too():
    for images, count in ((60, 4), (48, 4), (58, 2), (51, 3), (25, 1)):
        assert len(devices_of(settings(), batches_of(images, 24))) == count
    two = settings(runtime__devices=2, accumulation=3)
    assert len(devices_of(two, batches_of(60, 24))) == 2


@pytest.mark.parametrize(
    ("changes", "product"),
    [
        ({"runtime__devices": 4}, "4 x 1 = 4"),
        ({"runtime__devices": 2, "accumulation": 2}, "2 x 2 = 4"),
        ({"accumulation": 4}, "3 x 4 = 12"),  # also where devices are chosen
    ],
)
def test_a_last_batch_that_devices_cannot_share_is_an_error(changes, product):
    message = (
        f"data.drop_last=False: the last batch .* = {product}, got 10 images: .*drop_last=True"
    )
    with pytest.raises(UserError, match=message):
        devices_of(settings(**changes), batches_of(58, 24))


def test_a_run_whose_last_batch_cannot_be_shared_is_refused_before_it_begins(tmp_path):
    config = small_run.config(**KEYS | {"batch_size": 40}, runtime__devices=1, accumulation=8)
    with pytest.raises(UserError, match="= 1 x 8 = 8, got 20 images"):
        loop.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow  # compiles six programs
def test_a_run_equals_a_plain_loop_over_its_batches(tmp_path, compiled_once):
    config = small_run.config(**KEYS, runtime__steps_per_dispatch=2, runtime__devices=2, epochs=2)
    loop.train_and_evaluate(config, tmp_path / "run")
    run = preparation.prepare(config, tmp_path / "plain", Arguments()).run
    settings = run.settings
    key = jax.random.fold_in(jax.random.key(order_seed(settings)), 1)
    state, measured = initial_state(run), []
    # On one device: its statistics are those of the whole batch, of 24 or 12 images.
    student = run.objective.student.clone(bn_axis_name=None)
    update = jax.jit(
        functools.partial(
            step.train_step,
            objective=run.objective.__class__(student),
            optimizer=run.optimizer,
            weights=run.weights,
            prepare=run.prepare_train,
        )
    )
    for number in range(3):
        batch = jax.tree.map(jnp.asarray, run.batches.batch(number))
        state, metrics = update(state, None, key, batch)
        measured.append(metrics["loss"])
    (first, _) = small_run.lines_of(tmp_path / "run")
    total, count = (sum(float(each[index]) for each in measured) for index in range(2))
    assert count == 60 and first["loss"] == pytest.approx(total / count, rel=1e-4)
    # One epoch alone ends in the same parameters and statistics.
    loop.train_and_evaluate(
        small_run.config(**KEYS, runtime__devices=2, epochs=1, optimizer__drop_epochs=()),
        tmp_path / "one",
    )
    _, variables = checkpoint.load(tmp_path / "one")
    chex.assert_trees_all_close(
        variables, {"params": state.params["student"], **state.collections}, rtol=2e-3, atol=2e-4
    )
