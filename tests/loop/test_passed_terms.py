"""Terms passed as an argument: their weights, their start, their record."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import own_modules
import pytest
import small_run

from at_jax import loop
from at_jax.errors import UserError
from at_jax.options import above, option
from at_jax.terms import AttentionTransfer, Distillation, FlipSymmetry, Term
from at_jax.training import description, preparation
from at_jax.training.components.arguments import Arguments
from at_jax.training.files import run_files


@dataclasses.dataclass(frozen=True)
class LogitMatching(Term):
    """Mean squared difference of the logits."""

    name: ClassVar[str] = "logits"
    beta: ClassVar[float] = 0.5
    needs_equal_classes: ClassVar[bool] = True
    scale: float = option(1.0, "Scale of the difference.", above(0))

    def values(self, batch, params):
        return self.scale * jnp.mean((batch.student.logits - batch.teacher.logits) ** 2, axis=-1)


def test_keys_that_passed_components_replace_are_noted(finished, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(description, "log", lines.append)
    changes = {"kd__temperature": 20.0, "dtype": "bfloat16", "transfer__points": ("only<-group3",)}
    config = small_run.with_teacher(finished, **changes)
    terms = (Distillation(temperature=3.0), AttentionTransfer())
    preparation.prepare(config, tmp_path, Arguments(student=own_modules.Tapped(), terms=terms))
    text = "\n".join(lines)
    assert "terms= has Distillation(temperature=3.0" in text
    assert "the config's Distillation(temperature=20.0" in text and "AttentionTransfer" not in text
    assert "note: dtype=bfloat16 is that of networks of at_jax: Tapped computes in its own" in text
    assert "teacher: wrn_10_0.5" in text
    lines.clear()
    student = own_modules.Typed(dtype=jnp.bfloat16)
    preparation.prepare(config, tmp_path / "typed", Arguments(student=student, terms=terms))
    assert "dtype=" not in "\n".join(lines)


def test_terms_replace_those_of_the_method(finished, tmp_path):
    config = small_run.with_teacher(finished, epochs=1, transfer__begin_epoch=0)
    terms = {LogitMatching(scale=2.0): 3.0, Distillation(): None, AttentionTransfer(): 7.0}
    result = loop.train_and_evaluate(config, tmp_path, terms=terms)
    (line,) = small_run.lines_of(tmp_path)
    assert result["method"] == run_files.read_method(tmp_path) == "logits+kd+at"
    assert (line["beta/logits"], line["beta/attention"]) == (3.0, 7.0)
    total = line["loss/distillation"] + 3 * line["loss/logits"] + 7 * line["loss/attention"]
    assert line["loss"] == pytest.approx(total, rel=1e-5)
    (first, *_) = small_run.recorded(tmp_path)["terms"]
    assert first == {
        "name": "logits", "weight": 3.0, "class": f"{__name__}:LogitMatching",
        "fields": {"scale": 2.0}, "unrecorded": [],
    }  # fmt: skip
    with pytest.raises(
        UserError, match=r"LogitMatching\(weight=3.0\), .*got \(.*LogitMatching\(weight=4.0\)"
    ):
        loop.train_and_evaluate(config, tmp_path, terms=terms | {LogitMatching(scale=2.0): 4.0})


@pytest.mark.slow  # trains a run
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


class WithInit(Term):
    """A term whose option is no field."""

    name: ClassVar[str] = "with_init"

    def __init__(self, scale):
        self.scale = scale

    def values(self, batch, params):
        return self.scale * batch.student.cross_entropy


def test_term_whose_options_are_no_fields_raises(tmp_path):
    message = "term WithInit must be a frozen dataclass, got a class with its own __init__"
    with pytest.raises(UserError, match=message):
        loop.train_and_evaluate(small_run.config(), tmp_path / "run", terms=(WithInit(2.0),))
    assert not (tmp_path / "run").exists()


class NormalizedAdapter(nn.Module):
    """A module with state."""

    @nn.compact
    def __call__(self, taps):
        return nn.BatchNorm(use_running_average=False)(taps["group3"])


@dataclasses.dataclass(frozen=True)
class WithState(Term):
    """A term whose module is not supported."""

    name: ClassVar[str] = "with_state"
    compares_taps: ClassVar[str] = "activation"

    def module(self, points, taps_s, taps_t):
        return NormalizedAdapter()


def test_term_whose_module_has_state_raises(finished, tmp_path):
    config = small_run.with_teacher(finished)
    message = "term with_state: its module must have parameters only, got also batch_stats"
    with pytest.raises(UserError, match=message):
        loop.train_and_evaluate(config, tmp_path, terms=(WithState(),))


@dataclasses.dataclass(frozen=True)
class Logarithm(Term):
    """A term that is NaN where the first logit is negative."""

    name: ClassVar[str] = "logarithm"
    needs_teacher: ClassVar[bool] = False

    def values(self, batch, params):
        return jnp.log(-jnp.square(batch.student.logits[:, 0]) - 1)


def test_term_of_nan_is_named_where_the_labels_give_a_finite_loss(tmp_path):
    config = small_run.config(method="none", epochs=1)
    message = "no rate is the cause: check the values of term logarithm$"
    with pytest.raises(loop.NonFinite, match=message):
        loop.train_and_evaluate(config, tmp_path, terms=(Logarithm(),))


@pytest.mark.slow  # the weights are tested in training/
def test_begin_epoch_starts_the_terms_late(finished, tmp_path):
    config = small_run.with_teacher(finished, method="at+kd", at__begin_epoch=1, kd__begin_epoch=1)
    loop.train_and_evaluate(config, tmp_path)
    first, second = small_run.lines_of(tmp_path)
    assert (first["beta"], second["beta"]) == (0.0, 50.0)
    assert first["loss"] == pytest.approx(first["loss/cross_entropy"], rel=1e-5)
    total = second["loss/distillation"] + 50 * second["loss/attention"]
    assert second["loss"] == pytest.approx(total, rel=1e-5)


@dataclasses.dataclass(frozen=True)
class Mapped(Term):
    """A term with an option that JSON cannot hold."""

    name: ClassVar[str] = "mapped"
    needs_teacher: ClassVar[bool] = False
    function: Callable = jnp.abs

    def values(self, batch, params):
        return self.function(batch.student.logits[:, 0])


@pytest.mark.slow  # other arguments resume in the fast tests
def test_term_with_a_function_resumes(tmp_path):
    config = small_run.config(method="none", epochs=1)
    loop.train_and_evaluate(config, tmp_path, terms=(Mapped(jnp.square),))
    (recorded,) = small_run.recorded(tmp_path)["terms"]
    assert (recorded["fields"], recorded["unrecorded"]) == ({}, ["function"])
    longer = small_run.config(method="none", epochs=2)
    result = loop.train_and_evaluate(longer, tmp_path, terms=(Mapped(jnp.square),))
    assert (result["method"], result["epochs"]) == ("mapped", 2)
    # The default is a function as well, and no field is left out of the record.
    with pytest.raises(
        UserError, match=r"another terms=, \(.*Mapped\(function=...\)\), got \(.*Mapped\): pass"
    ):
        loop.train_and_evaluate(longer, tmp_path, terms=(Mapped(),))


def test_no_terms_train_without_a_teacher(tmp_path):
    result = loop.train_and_evaluate(small_run.config(epochs=1), tmp_path, terms=())
    assert result["method"] == run_files.read_method(tmp_path) == "none"
    assert result["teacher_test_error"] is None
    (line,) = small_run.lines_of(tmp_path)
    assert line["loss"] == pytest.approx(line["loss/cross_entropy"], rel=1e-5)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({Mapped(): -1.0}, "the weight of mapped must be from 0 to 1e.08, got -1.0: pass a number, or"),
        ({Mapped(): float("nan")}, "the weight of mapped must be from 0 to 1e.08, got nan"),
        ({Mapped(): "2"}, "the weight of mapped must be from 0 to 1e.08, got '2'"),
        ({Mapped(): True}, "the weight of mapped must be from 0 to 1e.08, got True"),
        ({Distillation(): 2.0}, "kd replaces the cross-entropy and has no weight, got 2.0: pass None"),
        ((AttentionTransfer(), AttentionTransfer(p=1)), "at"),
    ],
)  # fmt: skip
def test_weights_that_are_wrong_raise(tmp_path, terms, message):
    with pytest.raises(UserError, match=message):
        loop.train_and_evaluate(small_run.config(), tmp_path / "run", terms=terms)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "terms"),
    [
        ({"transfer__begin_epoch": 2}, None),
        ({"at__begin_epoch": 2}, None),
        ({"method": "at+kd", "kd__begin_epoch": 3}, None),
        ({"transfer__begin_epoch": 2}, (Mapped(),)),
        ({"at__begin_epoch": 5}, (AttentionTransfer(),)),
    ],
)
def test_term_that_begins_after_the_last_epoch_raises(tmp_path, changes, terms):
    message = r"must begin before the last epoch ends, got \w+.begin_epoch=\d in a run of 2 epochs"
    with pytest.raises(UserError, match=message):
        loop.train_and_evaluate(small_run.config(**changes), tmp_path / "run", terms=terms)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FlipSymmetry(squared=2), "flip_symmetry.squared must be True or False, got 2"),
        (lambda: AttentionTransfer(p=True), "at.p must be from 1 to 16, got True"),
        (lambda: AttentionTransfer(kind=1), "at.kind must be one of sum, max, channel, got 1"),
        (lambda: LogitMatching(scale="2"), "logits.scale must be above 0, got '2'"),
    ],
)
def test_options_of_the_wrong_type_raise(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_term_without_values_raises(tmp_path):
    class Empty(Term):
        name = "empty"
        needs_teacher = False

    with pytest.raises(UserError, match=r"Empty computes nothing: define values\(batch, params\)"):
        loop.train_and_evaluate(small_run.config(), tmp_path / "run", terms=(Empty(),))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # test_loop.py continues a run of the config
def test_more_epochs_continue_a_run_with_passed_terms(finished, tmp_path):
    """Its teacher is given: nothing else is trained as long as the student."""
    config = small_run.with_teacher(finished, teacher__epochs=0, epochs=1)
    loop.train_and_evaluate(config, tmp_path, terms=(LogitMatching(),))
    longer = small_run.with_teacher(finished, teacher__epochs=0, epochs=2)
    assert loop.train_and_evaluate(longer, tmp_path, terms=(LogitMatching(),))["epochs"] == 2
