"""Passes of the networks: one forward for any number of terms, one backward for each input gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
import tiny

from at_jax.objective import Objective
from at_jax.terms import (
    TERMS,
    FlipSymmetry,
    GradientTransfer,
    JacobianMatching,
    MapGradientTransfer,
    MinL2,
    SobolevTraining,
)  # fmt: skip

BATCH = tiny.batch(4)
IMAGES = tiny.prepare(None, BATCH["image"], None)
LABELS = jnp.asarray(BATCH["label"])
STUDENT, TEACHER = tiny.TinyNet(), tiny.TinyNet((5, 6))
KEYS = jax.random.split(jax.random.key(0), 4)
NAMES = ("gradient_at", "flip_symmetry", "min_l2")


def networks():
    """Parameters and collections of the student, variables of the teacher."""
    objective = tiny.objective(STUDENT, TEACHER)
    created = tiny.create(objective)
    return created.params, created.collections, tiny.teacher_variables(objective)


def pull_backs(terms):
    """Number of convolution input gradients in the loss: two a pull-back of either network."""
    weights = dict.fromkeys(terms.weighted_terms, 1.0)
    jaxpr = jax.make_jaxpr(terms)(*networks(), IMAGES, LABELS, weights, KEYS)
    return str(jaxpr).count("at_conv_input_grad[") / 2


def test_terms_of_one_temperature_share_one_input_gradient():
    for temperature in (1.0, 4.0):
        gradient_at = GradientTransfer(temperature=temperature)
        alone = Objective(STUDENT, TEACHER, (gradient_at,))
        assert pull_backs(alone) == 2  # one of each network
        shared = Objective(STUDENT, TEACHER, (gradient_at, MinL2(temperature=temperature)))
        assert pull_backs(shared) == 2
    apart = Objective(STUDENT, TEACHER, (gradient_at, MinL2(temperature=2.0)))
    assert pull_backs(apart) == 3
    flipped = Objective(STUDENT, TEACHER, (gradient_at, FlipSymmetry(temperature=4.0)))
    assert pull_backs(flipped) == 3  # of the mirrored images, too


@pytest.mark.parametrize("term", [JacobianMatching(), SobolevTraining(), MapGradientTransfer()])
def test_norms_that_a_term_reports_need_no_pass_of_their_own(term):
    objective = Objective(STUDENT, TEACHER, (term,), tiny.POINTS)
    outputs = jax.eval_shape(objective, *networks(), IMAGES, LABELS, {term.name: 1.0}, KEYS)[1]
    assert len(outputs.measures) == 2 and pull_backs(objective) == 2


@pytest.mark.parametrize(
    ("names", "forwards"),
    [
        ((), 1),
        (("gradient_at",), 1),
        (("min_l2",), 1),
        (("jacobian", "sobolev", "map_gradient", "gradient_at", "min_l2", "kd", "at"), 1),
        (("flip_symmetry",), 2),
        (NAMES, 2),
    ],
)
def test_networks_are_applied_once_however_many_terms(names, forwards):
    params, collections, teacher = networks()
    objective = Objective(STUDENT, TEACHER, tuple(TERMS[name]() for name in names), tiny.POINTS)
    applied = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, tiny.TinyNet) and context.method_name == "__call__":
            applied.append((context.module.widths, kwargs["train"]))
        return call(*args, **kwargs)

    def loss(params):
        weights = dict.fromkeys(set(names) - {"kd"}, 1.0)
        return objective(params, collections, teacher, IMAGES, LABELS, weights, KEYS)[0]

    with nn.intercept_methods(note):
        jax.eval_shape(jax.grad(loss), params)
    assert sorted(applied) == [((3, 4), True)] * forwards + [((5, 6), False)]
