"""Components passed as arguments: data, optimizer, augmentation, terms, callbacks, networks."""

import dataclasses
import json
import pathlib
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import own_modules
import pytest
import small_run
from flax import nnx

from at_jax import checkpoint, data, loop
from at_jax.errors import UserError
from at_jax.options import above, option
from at_jax.terms import AttentionTransfer, Distillation, Term
from at_jax.training import run_files


def arrays(size=16, classes=3, images=60, seed=0):
    """A data set of random images; the first row of pixels encodes the class."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 100, (2 * images, size, size, 1)).astype(np.uint8)
    y = np.arange(2 * images) % classes
    x[:, 0] = (80 * y)[:, None, None]
    return data.from_arrays(x[:images], y[:images], x[images:], y[images:], class_names=list("abc"))


@dataclasses.dataclass(frozen=True)
class LogitMatching(Term):
    """Mean squared difference of the logits."""

    name: ClassVar[str] = "logits"
    beta: ClassVar[float] = 0.5
    needs_equal_classes: ClassVar[bool] = True
    scale: float = option(1.0, "Scale of the difference.", above(0))

    def values(self, batch, params):
        return self.scale * jnp.mean((batch.student.logits - batch.teacher.logits) ** 2, axis=-1)


class Recorder:
    """A callback."""

    def __init__(self):
        self.epochs, self.results = [], []

    def on_epoch(self, metrics):
        self.epochs.append(metrics["epoch"])

    def on_end(self, result):
        self.results.append(result)


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


def stored(workdir):
    return json.loads((workdir / "config.json").read_text())["arguments"]


def test_dataset_optimizer_and_augment_apply_to_the_teacher_too(tmp_path, lenient_promotion):
    config = small_run.config(data__train_examples=0, teacher__train_examples=0)
    given = {"dataset": arrays(), "optimizer": adamw, "augment": dim}
    result = loop.train_and_evaluate(config, tmp_path, **given)
    assert 0 <= result["test_error"] <= 100
    description = checkpoint.open_run(tmp_path / "teacher")[2]
    assert description["class_names"] == ["a", "b", "c"]
    recorded = stored(tmp_path)
    assert recorded["dataset"] == {"name": "arrays", "fingerprint": given["dataset"].fingerprint()}
    assert (recorded["optimizer"], recorded["augment"]) == (
        f"{__name__}:adamw",
        f"{__name__}:dim",
    )
    assert stored(tmp_path / "teacher").keys() == recorded.keys()
    # Not passed again, they are missing; passed again, the run is finished and returned.
    with pytest.raises(
        UserError, match=r"pass augment=, dataset=, optimizer= to train_and_evaluate"
    ):
        loop.train_and_evaluate(config, tmp_path)
    with pytest.raises(UserError, match="started with another dataset: arrays there, arrays now"):
        loop.train_and_evaluate(config, tmp_path, **(given | {"dataset": arrays(seed=1)}))
    assert loop.train_and_evaluate(config, tmp_path, **given) == result
    with pytest.raises(UserError, match="data set passed as an argument"):
        loop.evaluate(config, tmp_path)
    errors = loop.evaluate(config, tmp_path, dataset=given["dataset"])
    assert errors["test_error"] == pytest.approx(result["test_error"])


def test_optimizer_passed_to_a_run_without_it_raises(finished):
    with pytest.raises(UserError, match="was started without optimizer=: leave it out"):
        loop.train_and_evaluate(small_run.config(), finished[0], optimizer=adamw)


def test_optimizer_that_needs_the_loss_resumes(tmp_path, lenient_promotion):
    changes = {"method": "none", "optimizer__learning_rate": 0.0}
    loop.train_and_evaluate(small_run.config(**changes), tmp_path, optimizer=plateau)
    longer = small_run.config(epochs=3, **changes)
    result = loop.train_and_evaluate(longer, tmp_path, optimizer=plateau)
    assert result["epochs"] == 3
    assert [line["epoch"] for line in small_run.lines_of(tmp_path)] == [1, 2, 3]


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


def test_terms_replace_those_of_the_method(finished, tmp_path):
    config = small_run.with_teacher(finished, epochs=1, transfer__begin_epoch=0)
    terms = {LogitMatching(scale=2.0): 3.0, Distillation(): None, AttentionTransfer(): 7.0}
    result = loop.train_and_evaluate(config, tmp_path, terms=terms)
    (line,) = small_run.lines_of(tmp_path)
    assert result["method"] == run_files.read_method(tmp_path) == "logits+kd+at"
    assert (line["beta/logits"], line["beta/attention"]) == (3.0, 7.0)
    total = line["loss/distillation"] + 3 * line["loss/logits"] + 7 * line["loss/attention"]
    assert line["loss"] == pytest.approx(total, rel=1e-5)
    (first, *_) = stored(tmp_path)["terms"]
    assert first == {
        "name": "logits", "class": f"{__name__}:LogitMatching", "options": {"scale": 2.0}, "beta": 3.0,
    }  # fmt: skip
    with pytest.raises(UserError, match="started with another terms"):
        loop.train_and_evaluate(config, tmp_path, terms=terms | {LogitMatching(scale=2.0): 4.0})


def test_terms_take_their_default_weight(finished, tmp_path):
    config = small_run.with_teacher(finished, epochs=1, at__beta=11.0)
    loop.train_and_evaluate(config, tmp_path, terms=(LogitMatching(), AttentionTransfer()))
    (line,) = small_run.lines_of(tmp_path)
    assert (line["beta/logits"], line["beta/attention"]) == (0.5, 11.0)


def test_terms_that_are_no_terms_raise(tmp_path):
    with pytest.raises(
        UserError, match=r"got LogitMatching: pass a sequence such as \(MyTerm\(\),\)"
    ):
        loop.train_and_evaluate(small_run.config(), tmp_path, terms=(LogitMatching,))
    with pytest.raises(UserError, match="logits.scale must be above 0, got -1"):
        LogitMatching(scale=-1)


def test_begin_epoch_starts_the_terms_late(finished, tmp_path):
    config = small_run.with_teacher(finished, method="at+kd", at__begin_epoch=1, kd__begin_epoch=1)
    loop.train_and_evaluate(config, tmp_path)
    first, second = small_run.lines_of(tmp_path)
    assert (first["beta"], second["beta"]) == (0.0, 50.0)
    assert first["loss"] == pytest.approx(first["loss/cross_entropy"], rel=1e-5)
    total = second["loss/distillation"] + 50 * second["loss/attention"]
    assert second["loss"] == pytest.approx(total, rel=1e-5)


def test_callbacks_receive_epochs_and_the_result(finished, tmp_path):
    recorder = Recorder()
    result = loop.train_and_evaluate(
        small_run.with_teacher(finished), tmp_path, callbacks=[recorder]
    )
    assert recorder.epochs == [1, 2] and recorder.results == [result]
    # A run may be resumed without its callbacks.
    assert loop.train_and_evaluate(small_run.with_teacher(finished), tmp_path) == result
    with pytest.raises(UserError, match=r"callback object has no method on_epoch"):
        loop.train_and_evaluate(small_run.config(), tmp_path, callbacks=[object()])


@pytest.mark.parametrize(
    "student",
    [
        own_modules.Dropping(),
        own_modules.Counting(),
        nnx.bridge.to_linen(own_modules.NnxNet, 4),
    ],
    ids=["dropout", "collections", "nnx"],
)
def test_user_network_trains_resumes_and_evaluates(finished, tmp_path, student):
    points = {"transfer__points": ("only<-group3",)}
    config = small_run.with_teacher(finished, epochs=1, **points)
    loop.train_and_evaluate(config, tmp_path, student=student)
    longer = small_run.with_teacher(finished, epochs=2, **points)
    result = loop.train_and_evaluate(longer, tmp_path, student=student)
    (tmp_path / "whole").mkdir()
    whole = loop.train_and_evaluate(longer, tmp_path / "whole", student=student)
    assert result["test_error"] == whole["test_error"]
    assert small_run.lines_of(tmp_path) == small_run.lines_of(tmp_path / "whole")
    errors = loop.evaluate(longer, tmp_path, student=student)
    assert errors["test_error"] == pytest.approx(result["test_error"])
    if isinstance(student, own_modules.Counting):
        _, variables = checkpoint.load(tmp_path, module=student)
        assert int(variables["counters"]["calls"]) == 6
        assert float(variables["running"]["mean"]) != 0


def test_points_by_submodule_path_are_captured(finished, tmp_path):
    points = ("stem<-group2_block0", "layer<-group3")
    config = small_run.with_teacher(finished, epochs=1, transfer__points=points)
    loop.train_and_evaluate(config, tmp_path, student=own_modules.Untapped())
    assert small_run.lines_of(tmp_path)[0]["loss/attention"] > 0
    wrong = small_run.with_teacher(finished, transfer__points=("nothing<-group3",))
    with pytest.raises(UserError, match="student has no transfer point 'nothing'"):
        loop.train_and_evaluate(wrong, tmp_path / "wrong", student=own_modules.Untapped())


def test_attention_transfer_between_other_classes_trains(finished, tmp_path):
    module, variables = checkpoint.load(finished[0] / "teacher")
    config = small_run.config(
        epochs=1, data__train_examples=0, data__mean=(0.0,), data__std=(64.0,)
    )
    result = loop.train_and_evaluate(
        config, tmp_path, teacher=(module, variables), dataset=arrays(classes=3)
    )
    assert result["teacher_test_error"] is None
    assert json.loads((tmp_path / "result.json").read_text())["teacher_test_error"] is None
    for method in ("kd", "gradient_at", "jacobian", "sobolev"):
        other = small_run.config(method=method, data__train_examples=0)
        with pytest.raises(
            UserError, match=f"{method} needs student and teacher with the same classes"
        ):
            loop.train_and_evaluate(
                other, tmp_path / method, teacher=(module, variables), dataset=arrays(classes=3)
            )


def test_run_of_a_user_module_is_a_teacher_when_it_is_named(finished, tmp_path):
    teacher = small_run.config(method="none", epochs=1)
    student = own_modules.Tapped(features=4)
    loop.train_and_evaluate(teacher, tmp_path / "teacher", student=student)
    recorded = stored(tmp_path / "teacher")["student"]
    assert recorded == {
        "class": "own_modules:Tapped", "fields": {"classes": 10, "features": 4}, "unrecorded": [],
    }  # fmt: skip
    changes = {
        "teacher__checkpoint": str(tmp_path / "teacher"),
        "transfer__points": ("group3<-only",),
    }
    config = small_run.config(epochs=1, **changes)
    with pytest.raises(
        UserError, match="user-defined module .own_modules:Tapped.: pass it again with --module="
    ):
        loop.train_and_evaluate(config, tmp_path / "student")
    for index, named in enumerate(("own_modules:Tapped", "own_modules:make_tapped", student)):
        workdir = tmp_path / f"student{index}"
        result = loop.train_and_evaluate(config, workdir, module=named)
        assert result["teacher_test_error"] is not None
    for named, message in (
        ("own_modules", "must be package:name"),
        ("own_modules:Nothing", "cannot be imported"),
        ("no_such_package:Net", "cannot be imported"),
    ):
        with pytest.raises(UserError, match=message):
            loop.evaluate(teacher, tmp_path / "teacher", module=named)


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
