"""Components passed as arguments: data, optimizer, augmentation, callbacks."""

import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import own_modules
import pytest
import small_run

from at_jax import checkpoint, loop
from at_jax.errors import UserError
from at_jax.terms import AttentionTransfer, Term
from at_jax.training.files import run_files


class Recorder:
    """A callback."""

    def __init__(self):
        self.epochs, self.results = [], []

    def on_epoch(self, metrics):
        self.epochs.append(metrics["epoch"])

    def on_end(self, result):
        self.results.append(result)


class OfNumpy(nn.Module):
    """A network that JAX cannot trace."""

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(10)(np.asarray(images).mean((1, 2)))


class Branching(Term):
    """A term that JAX cannot trace."""

    name = "branching"
    needs_teacher = False

    def values(self, batch, params):
        logits = batch.student.logits
        return logits[:, 0] if logits.sum() > 0 else logits[:, 1]


def to_numpy(rate):
    return optax.stateless(lambda updates, _: jax.tree.map(np.asarray, updates))


class EpochOnly:
    """A callback that lacks a method."""

    def on_epoch(self, metrics):
        pass


@pytest.fixture
def lenient_promotion():
    """optax's Adam mixes the dtypes of its counters."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def adamw(rate):
    return optax.adamw(rate)


def plateau(rate):
    return optax.chain(optax.sgd(rate), optax.contrib.reduce_on_plateau(patience=1))


def dim(key, image):
    return image // (1 + jax.random.bernoulli(key).astype(image.dtype))


def test_dataset_optimizer_and_augment_apply_to_the_teacher_too(tmp_path, lenient_promotion):
    changes = {"data__train_examples": 0, "teacher__train_examples": 0}
    config = small_run.config(teacher__model="wrn_10_0.25", **changes)
    given = {"dataset": small_run.arrays(), "optimizer": adamw, "augment": dim}
    result = loop.train_and_evaluate(config, tmp_path, **given)
    assert 0 <= result["test_error"] <= 100
    description = checkpoint.open_run(tmp_path / "teacher")[2]
    assert description["class_names"] == ["a", "b", "c"]
    recorded = small_run.recorded(tmp_path)
    assert recorded["dataset"] == {"name": "arrays"}
    assert (recorded["optimizer"], recorded["augment"]) == (
        f"{__name__}:adamw",
        f"{__name__}:dim",
    )
    assert small_run.recorded(tmp_path / "teacher").keys() == recorded.keys()
    # Not passed again, they are missing; passed again, the run is finished and returned.
    with pytest.raises(
        UserError, match=r"pass augment=, dataset=, optimizer= to train_and_evaluate"
    ):
        loop.train_and_evaluate(config, tmp_path)
    with pytest.raises(UserError, match="have changed .names, labels or pixels of its train"):
        loop.train_and_evaluate(config, tmp_path, **(given | {"dataset": small_run.arrays(seed=1)}))
    assert loop.train_and_evaluate(config, tmp_path, **given) == result
    with pytest.raises(UserError, match="data set passed as an argument"):
        loop.evaluate(config, tmp_path)
    errors = loop.evaluate(config, tmp_path, dataset=given["dataset"])
    assert errors["test_error"] == pytest.approx(result["test_error"])


def test_optimizer_passed_to_a_run_without_it_raises(finished_copy):
    with pytest.raises(UserError, match="was started without optimizer=: leave it out"):
        loop.train_and_evaluate(small_run.config(), finished_copy, optimizer=adamw)


def test_learning_rate_that_the_optimizer_does_not_read_is_no_metric(tmp_path):
    config = small_run.config(method="none", epochs=1)
    loop.train_and_evaluate(config, tmp_path, optimizer=lambda rate: optax.sgd(0.01))
    (line,) = small_run.lines_of(tmp_path)
    assert "learning_rate" not in line and "beta" in line


@pytest.mark.slow  # trains twice
def test_optimizer_that_needs_the_loss_resumes(tmp_path, lenient_promotion):
    changes = {"method": "none", "optimizer__learning_rate": 0.0}
    loop.train_and_evaluate(small_run.config(**changes), tmp_path, optimizer=plateau)
    longer = small_run.config(epochs=3, **changes)
    result = loop.train_and_evaluate(longer, tmp_path, optimizer=plateau)
    assert result["epochs"] == 3
    assert [line["epoch"] for line in small_run.lines_of(tmp_path)] == [1, 2, 3]


@pytest.mark.slow  # trains a run
@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_optimizer_of_the_config_trains(tmp_path, lenient_promotion, name):
    config = small_run.config(
        method="none", epochs=1, optimizer__name=name, optimizer__learning_rate=0.01,
        optimizer__schedule="cosine", optimizer__warmup_epochs=0.5, optimizer__clip_norm=1.0,
        optimizer__decay_mask="kernels",
    )  # fmt: skip
    loop.train_and_evaluate(config, tmp_path)
    (line,) = small_run.lines_of(tmp_path)
    assert 0 <= line["learning_rate"] < 0.01


def test_callbacks_receive_epochs_and_the_result(finished, tmp_path):
    recorder = Recorder()
    result = loop.train_and_evaluate(
        small_run.with_teacher(finished), tmp_path, callbacks=[recorder]
    )
    assert recorder.epochs == [1, 2] and recorder.results == [result]
    # A run may be resumed without its callbacks.
    assert loop.train_and_evaluate(small_run.with_teacher(finished), tmp_path) == result
    with pytest.raises(UserError, match=r"callback object must have the methods on_epoch"):
        loop.train_and_evaluate(small_run.config(), tmp_path, callbacks=[object()])


def test_run_of_version_0_1_is_read(finished, tmp_path):
    """Its config.json has no record of arguments, and lacks the keys that came later."""
    workdir = pathlib.Path(tmp_path)
    config = small_run.config(method="none")
    old = config.to_dict()
    del old["jacobian"], old["gradient_at"]["temperature"], old["optimizer"]["name"]
    run_files.write_json(workdir / "config.json", old)
    run_files.check(workdir, config.to_dict())
    assert run_files.read_config(workdir)["optimizer"]["name"] == "sgd"
    assert run_files.read_arguments(workdir) == {}
    with pytest.raises(UserError, match="seed: 0 there, 1 now"):
        run_files.check(workdir, small_run.config(method="none", seed=1).to_dict())


def with_state(value):
    """An optimizer whose state holds a constant."""

    def init(params):
        return {"constant": jnp.asarray(value)}

    def update(updates, state, params=None):
        return updates, state

    return lambda rate: optax.chain(optax.GradientTransformation(init, update), optax.sgd(rate))


@pytest.mark.slow  # trains a run
def test_optimizer_with_an_infinite_number_in_its_state_trains(tmp_path):
    config = small_run.config(method="none", epochs=1)
    result = loop.train_and_evaluate(config, tmp_path, optimizer=with_state(jnp.inf))
    assert result["epochs"] == 1


def test_optimizer_with_a_nan_in_its_state_raises_non_finite(tmp_path):
    config = small_run.config(method="none", epochs=1)
    with pytest.raises(loop.NonFinite, match=r"state\.opt_state.*constant.* is not finite"):
        loop.train_and_evaluate(config, tmp_path, optimizer=with_state(jnp.nan))
    with pytest.raises(UserError, match="holds no checkpoint"):
        checkpoint.load(tmp_path)


def test_collection_that_becomes_infinite_raises_non_finite(tmp_path):
    config = small_run.config(method="none", epochs=1)
    with pytest.raises(loop.NonFinite, match=r"state\.collections.*inverse.* is not finite"):
        loop.train_and_evaluate(config, tmp_path, student=own_modules.Overflowing())


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"augment": lambda key, image: image.astype(jnp.float32) / 255}, "do not divide by 255"),
        ({"augment": lambda key, image: np.asarray(image)}, "must be traceable by JAX, got Tracer"),
        (
            {"augment": lambda key, image: image if image.max() > 9 else 0},
            "must be traceable by JAX",
        ),
        (
            {"augment": lambda key, image: image.astype("float32") * jnp.nan},
            "must return finite values",
        ),
        ({"student": OfNumpy()}, "student OfNumpy must be traceable by JAX, got TracerArray"),
        ({"terms": (Branching(),)}, "term branching must be traceable by JAX, got TracerBool"),
        ({"optimizer": to_numpy}, "optimizer must be traceable by JAX, got TracerArray"),
        ({"augment": lambda image: image}, r"must be callable as augment\(key, image\)"),
        ({"optimizer": lambda: optax.sgd(0.1)}, r"must be callable as optimizer\(rate\)"),
        ({"callbacks": object()}, r"callbacks must be a sequence, got object"),
        (
            {"callbacks": (EpochOnly(),)},
            r"EpochOnly must have .*, got one without on_end\(result\):",
        ),
        ({"terms": {AttentionTransfer(): np.float32(-1)}}, "weight of at must be .*, got -1.0"),
        (
            {"teacher": (own_modules.Untapped(), {})},
            "method 'none' uses no teacher, got teacher=: leave it out",
        ),
    ],
)
def test_arguments_of_another_form_are_named(tmp_path, argument, message):
    config = small_run.config(method="none")
    with pytest.raises(UserError, match=message):
        loop.train_and_evaluate(config, tmp_path / "run", **argument)
    assert not (tmp_path / "run").exists()
