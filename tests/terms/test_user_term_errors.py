"""Errors in terms of the user: each names the term and what to change."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import pytest
import tiny

from at_jax import losses
from at_jax.errors import UserError
from at_jax.objective import Objective
from at_jax.terms import Term

BATCH = tiny.batch(4)
IMAGES = tiny.prepare(None, BATCH["image"], None)
LABELS = jnp.asarray(BATCH["label"])
STUDENT, TEACHER = tiny.TinyNet(), tiny.TinyNet((5, 6))


@dataclasses.dataclass(frozen=True)
class Plain(Term):
    name: ClassVar[str] = "plain"

    def values(self, batch, params):
        return batch.student.cross_entropy


def called(term, points=()):
    objective = Objective(STUDENT, TEACHER, (term,), points)
    return jax.eval_shape(objective, *tiny.networks(STUDENT, TEACHER), IMAGES, LABELS)


def with_method(name, function, **attributes):
    return type("Made", (Plain,), {name: function, "name": "made", **attributes})()


def last_point(self, batch, params):
    s, t = batch.points[-1]
    return losses.attention_transfer(batch.student.taps[s], batch.teacher.taps[t])


def all_points(self, batch, params):
    taps_s, taps_t = batch.student.taps, batch.teacher.taps
    return sum(losses.attention_transfer(taps_s[s], taps_t[t]) for s, t in batch.points)


def test_term_that_sums_over_no_points_raises_usererror():
    message = (
        "can read batch.points only if there are points, got 0 without them: set compares_taps = "
    )
    with pytest.raises(UserError, match=message):
        called(with_method("values", all_points))


@pytest.mark.parametrize(
    ("method", "function"),
    [
        ("values", last_point),
        ("measures", lambda self, batch, params: {"x": batch.points[0]}),
        ("module", lambda self, points, taps_s, taps_t: points[-1]),
    ],
)
def test_error_of_a_term_that_reads_points_without_compares_taps_has_a_note(method, function):
    with pytest.raises(IndexError) as raised:
        called(with_method(method, function))
    note = raised.value.__notes__[0]
    assert "term made" in note and "no transfer points: set compares_taps = 'activation'" in note


@pytest.mark.parametrize(
    ("method", "function", "expected"),
    [
        (
            "values",
            lambda self, batch, params: batch.student.taps["x"],
            "in term made; the student taps early, late; the teacher taps early, late",
        ),
        (
            "measures",
            lambda self, batch, params: {"x": batch.teacher.taps["x"]},
            "in measures() of term made; the student taps",
        ),
        (
            "module",
            lambda self, points, taps_s, taps_t: taps_t["x"],
            "in module() of term made; the student taps",
        ),
        (
            "forward_inputs",
            lambda self, teacher: {"gate": teacher.taps["x"]},
            "in forward_inputs() of term made; the teacher taps early, late",
        ),
    ],
)
def test_error_of_a_term_that_reads_an_unknown_tap_notes_the_taps(method, function, expected):
    with pytest.raises(KeyError, match="x") as raised:
        called(with_method(method, function))
    assert raised.value.__notes__[0].startswith(expected)


@pytest.mark.parametrize(
    ("error", "points"),
    [(IndexError("list index out of range"), ()), (IndexError("tuple index out of range"), tiny.POINTS),
     (KeyError(3), ()), (KeyError("early"), ()), (KeyError(), ()), (ValueError("x"), ())],
)  # fmt: skip
def test_other_errors_of_a_term_are_raised_as_they_are(error, points):
    def values(self, batch, params):
        raise error

    with pytest.raises(type(error)) as raised:
        called(with_method("values", values), points)
    assert raised.value is error


@pytest.mark.parametrize(
    ("method", "function", "message"),
    [
        (
            "module",
            lambda self, points: None,
            r"module\(points, taps_s, taps_t\), got one that is not",
        ),
        (
            "values",
            lambda self, batch: None,
            r"values\(batch, params\), got one that is not .*: change",
        ),
        ("measures", None, r"measures\(batch, params\), got one"),
    ],
)
def test_method_with_another_signature_raises_usererror(method, function, message):
    with pytest.raises(UserError, match=f"term made: {method} must be callable as {message}"):
        Objective(STUDENT, TEACHER, (with_method(method, function),))


@pytest.mark.parametrize("name", ["kd+at", "none", 3])
def test_name_that_a_method_cannot_contain_raises_usererror(name):
    message = "the name of term Made must be a string without '[+]', which joins .*: rename it"
    with pytest.raises(UserError, match=message):
        type("Made", (Plain,), {"name": name})
