"""Weights of a call: numbers of any library, traced or not, and errors of others."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from at_jax.errors import UserError
from at_jax.objective import Objective
from at_jax.terms import AttentionTransfer, Distillation, Term

BATCH = tiny.batch(4)
IMAGES = tiny.prepare(None, BATCH["image"], None)
LABELS = jnp.asarray(BATCH["label"])
STUDENT, TEACHER = tiny.TinyNet(), tiny.TinyNet((5, 6))
OBJECTIVE = Objective(STUDENT, TEACHER, (Distillation(), AttentionTransfer()), tiny.POINTS)


@dataclasses.dataclass(frozen=True)
class Scaled(Term):
    name: ClassVar[str] = "scaled"
    needs_teacher: ClassVar[bool] = False

    def values(self, batch, params):
        return batch.student.cross_entropy


def loss_of(weights, objective=OBJECTIVE):
    return objective(*tiny.networks(STUDENT, TEACHER), IMAGES, LABELS, weights)[0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"at": jnp.ones(4)},
            r"the weight of at must be a scalar, got shape \(4,\): pass one number",
        ),
        ({"at": np.ones((1,))}, r"the weight of at must be a scalar, got shape \(1,\)"),
        ({"at": "3"}, r"the weight of at must be from 0 to 1e\+08, got '3': pass a number"),
        ({"at": None}, "the weight of at must be from 0 .*, got None"),
        ({"at": [1.0, 2.0]}, r"the weight of at must be from 0 .*, got \[1.0, 2.0\]"),
        ({"at": True}, "the weight of at must be from 0 .*, got True"),
        ({"at": -3.0}, r"the weight of at must be from 0 .*, got -3.0"),
        ({"at": jnp.float32(-3)}, "the weight of at must be from 0 "),
        ({"at": np.float32(np.nan)}, "the weight of at must be from 0 "),
        ({"at": jnp.asarray(1j)}, "the weight of at must be a number, got complex64: convert it"),
        ({"at": 1.0, "kd": 1.5}, "the weight of kd must be from 0 to 1, got 1.5"),
        (
            {"attention": 3.0},
            "must name terms of the objective, 'kd', 'at', got 'attention': pass 'at', the term, whose",
        ),
    ],
)
def test_weights_that_the_trainer_refuses_raise_usererror(weights, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda: loss_of(weights))


def test_traced_weights_with_axes_raise_usererror():
    with pytest.raises(UserError, match=r"the weight of at must be a scalar, got shape \(4,\)"):
        jax.eval_shape(lambda weight: loss_of({"at": weight}), jnp.ones(4))


def test_numbers_of_every_library_give_the_same_loss():
    objective = Objective(STUDENT, terms=(Scaled(),))
    params, collections, _ = tiny.networks(STUDENT, TEACHER)

    @tiny.jit
    def losses(traced):
        of_type = [
            3,
            3.0,
            np.float64(3),
            np.int8(3),
            np.asarray(3.0),
            jnp.int32(3),
            jnp.bfloat16(3),
        ]
        return [
            objective(params, collections, None, IMAGES, LABELS, {"scaled": weight})[0]
            for weight in (*of_type, *traced)
        ]

    found = losses([jnp.int32(3), jnp.float16(3), 3, 3.0])
    # The term is the cross-entropy, to which it is added.
    expected = 4 * losses([0.0])[-1]
    np.testing.assert_allclose(found, np.full(len(found), expected), rtol=1e-5)


def test_weights_of_float64_keep_the_dtype_of_the_loss():
    with jax.enable_x64(True):
        shapes = [
            jax.eval_shape(lambda weight=weight: loss_of({"at": weight}))
            for weight in (np.float64(3), jnp.asarray(3.0), 3.0)
        ]
        shapes.append(jax.eval_shape(lambda weight: loss_of({"at": weight}), jnp.float64(3)))
    assert {shape.dtype for shape in shapes} == {np.dtype(np.float32)}


def test_weights_are_differentiable():
    objective = Objective(STUDENT, terms=(Scaled(),))
    value, slope = tiny.jit(jax.value_and_grad(lambda w: loss_of({"scaled": w}, objective)))(2.0)
    np.testing.assert_allclose(value, 3 * slope, rtol=1e-5)
