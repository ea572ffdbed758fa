"""Optimizers, networks and callbacks with unusual state; data sets and caches of one process."""

import threading

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_run
from PIL import Image

from at_jax import loop
from at_jax.errors import UserError
from at_jax.training import compilation_cache
from at_jax.training.components import datasets
from at_jax.training.files import storage
from at_jax.training.files.checkpoints import Checkpoints


def labels_only(**changes):
    return small_run.config(method="none", **changes)


@pytest.fixture
def lenient_promotion():
    """optax mixes the dtypes of its counters."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def noisy(rate):
    return optax.noisy_sgd(rate, eta=0.01, gamma=0.55, key=0)


@pytest.mark.slow  # trains three runs
@pytest.mark.usefixtures("lenient_promotion")
def test_optimizer_with_a_prng_key_resumes_exactly(tmp_path):
    loop.train_and_evaluate(labels_only(epochs=1), tmp_path / "run", optimizer=noisy)
    loop.train_and_evaluate(labels_only(), tmp_path / "run", optimizer=noisy)
    loop.train_and_evaluate(labels_only(), tmp_path / "whole", optimizer=noisy)
    assert small_run.lines_of(tmp_path / "run") == small_run.lines_of(tmp_path / "whole")


@pytest.mark.usefixtures("lenient_promotion")
def test_optimizer_that_takes_no_loss_is_not_passed_it(tmp_path):
    def sam(rate):
        # Declares extra arguments without taking any.
        return optax.contrib.sam(optax.sgd(rate), optax.sgd(0.01))

    result = loop.train_and_evaluate(labels_only(epochs=1), tmp_path, optimizer=sam)
    assert result["epochs"] == 1 and "learning_rate" in small_run.lines_of(tmp_path)[0]


@pytest.mark.usefixtures("lenient_promotion")
def test_optimizer_that_counts_groups_of_steps_has_no_learning_rate_in_the_metrics(tmp_path):
    def grouped(rate):
        return optax.MultiSteps(optax.sgd(rate), 3).gradient_transformation()

    loop.train_and_evaluate(labels_only(epochs=1), tmp_path, optimizer=grouped)
    assert "learning_rate" not in small_run.lines_of(tmp_path)[0]


def growing(rate):
    def update(updates, state, params=None):
        return updates, {"count": state["count"].astype(float)}

    transformation = optax.GradientTransformation(lambda _: {"count": jnp.ones((), int)}, update)
    return optax.chain(transformation, optax.sgd(rate))


class WithList(nn.Module):
    widths: list

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(10)(images.mean((1, 2)))


class Halving(nn.Module):
    """Its counter becomes a float."""

    @nn.compact
    def __call__(self, images, train=False):
        count = self.variable("state", "count", lambda: jnp.ones((), jnp.int32))
        count.value = count.value.astype(jnp.float32) if train else count.value
        return nn.Dense(10)(images.mean((1, 2)))


class Late(nn.Module):
    """Creates a variable in training only."""

    @nn.compact
    def __call__(self, images, train=False):
        if train:
            self.variable("state", "count", lambda: jnp.ones(()))
        return nn.Dense(10)(images.mean((1, 2)))


class Mean(nn.Module):
    @nn.compact
    def __call__(self, images, train=False):
        return jnp.repeat(images.mean((1, 2)), 10, axis=-1)


class Logger:
    def on_epoch(self, epoch, metrics):
        pass

    def on_end(self, result):
        pass


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"optimizer": lambda rate: None}, "must return an optax transformation, got NoneType"),
        (
            {"optimizer": lambda rate: optax.lbfgs()},
            r"update from .* value= .*, got .* missing 2 required",
        ),
        (
            {"optimizer": lambda rate: optax.GradientTransformation(optax.sgd(1).init, None)},
            "got Grad",
        ),
        (
            {"optimizer": growing},
            r"keep the types of its state, got .*'count'.* int32\(\) before and float",
        ),
        ({"student": WithList([1, 2])}, "student WithList must have hashable fields"),
        (
            {"student": Halving()},
            r"Halving must keep the types .*, got \['state'\]\['count'\] int32\(\)",
        ),
        (
            {"student": Late()},
            "Late must have all its variables, .*: create the same ones with train=True and",
        ),
        ({"student": Mean()}, "the student must have parameters to train, got Mean without any"),
        (
            {"callbacks": [Logger]},
            r"callbacks must be objects, got the class Logger: pass Logger\(\)",
        ),
        ({"callbacks": [Logger()]}, r"on_epoch must be callable as on_epoch\(metrics\)"),
    ],
)
def test_components_that_cannot_train_are_named_before_anything_is_written(
    tmp_path, argument, message
):
    with pytest.raises(UserError, match=message):
        loop.train_and_evaluate(labels_only(), tmp_path / "run", **argument)
    assert not (tmp_path / "run").exists()


class Popping:
    """Changes what it is passed, as loggers do."""

    def __init__(self):
        self.steps = []

    def on_epoch(self, metrics):
        self.steps.append(metrics.pop("step"))
        metrics["test_error"] = 0.0

    def on_end(self, result):
        result.clear()


def test_callback_may_change_what_it_is_passed(tmp_path):
    callback = Popping()
    result = loop.train_and_evaluate(labels_only(), tmp_path / "a", callbacks=[callback])
    assert callback.steps == [3, 6]
    assert loop.train_and_evaluate(labels_only(), tmp_path / "a") == result
    assert result["best_test_error"] == min(
        line["test_error"] for line in small_run.lines_of(tmp_path / "a")
    )


def test_error_of_another_storage_is_not_that_of_the_workdir(tmp_path):
    error = OSError(28, "No space left on device", str(tmp_path / "logs" / "metrics.csv"))
    with (
        pytest.raises(OSError, match=r"metrics\.csv") as raised,
        storage.reported(tmp_path / "run"),
    ):
        raise error
    assert raised.value is error


def test_checkpoints_of_runs_in_several_threads_are_all_saved(tmp_path):
    errors = []

    def save(name):
        try:
            with Checkpoints(tmp_path / name) as checkpoints:
                for step in range(1, 11):
                    checkpoints.save(step, {"params": {"w": np.full(9, step)}}, {}, 1.0)
                checkpoints.wait()
                assert checkpoints.latest(("params",)).step == 10
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_images_that_are_added_to_a_folder_are_read_by_the_next_run(tmp_path):
    def add(count):
        for part in ("train", "test"):
            for name in ("a", "b"):
                folder = tmp_path / part / name
                folder.mkdir(parents=True, exist_ok=True)
                for index in range(count):
                    Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / f"{index}.png")

    config = small_run.config(
        data__source="folder", data__data_dir=str(tmp_path), data__image_size=8
    )
    settings = datasets.DataSettings(**{**config.data.to_dict(), "train_examples": 0})
    add(2)
    with datasets.kept_in_memory():
        first = datasets.load_dataset(settings)
        with datasets.kept_in_memory():
            assert datasets.load_dataset(settings) is first
        assert datasets.load_dataset(settings) is first
    add(3)
    assert len(first.train) == 4
    with datasets.kept_in_memory():
        assert len(datasets.load_dataset(settings).train) == 6


def test_compilation_cache_of_a_run_replaces_that_of_an_earlier_run(tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.chdir(tmp_path)
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        for name in ("a", "b"):
            compilation_cache.use(name)
            # Absolute: the program may change its directory.
            assert jax.config.jax_compilation_cache_dir == str(tmp_path / name)
        compilation_cache.use("")
        assert jax.config.jax_compilation_cache_dir is None
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "user"))
        compilation_cache.use("a")
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "user")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


class WithAdapter(nn.Module):
    """A network whose layer has the name of the parameters of f_actt in version 0.1."""

    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(10)(nn.relu(nn.Dense(4, name="adapter")(images.mean((1, 2)))))


def test_student_with_a_module_named_adapter_resumes(tmp_path):
    call = {"student": WithAdapter()}
    loop.train_and_evaluate(labels_only(epochs=1), tmp_path, **call)
    result = loop.train_and_evaluate(labels_only(epochs=2), tmp_path, **call)
    assert result["epochs"] == 2


def test_all_callbacks_receive_the_epoch_in_which_one_stops_the_run(tmp_path):
    seen = []

    class Stop:
        def on_epoch(self, metrics):
            if metrics["epoch"] == 1:
                raise SystemExit(3)

        def on_end(self, result):
            pass

    class Recorder(Stop):
        def on_epoch(self, metrics):
            seen.append(metrics["epoch"])

    call = {"student": WithAdapter(), "callbacks": (Stop(), Recorder())}
    with pytest.raises(SystemExit):
        loop.train_and_evaluate(labels_only(), tmp_path, **call)
    loop.train_and_evaluate(labels_only(), tmp_path, **call)  # not trained again
    assert seen == [1, 2]
