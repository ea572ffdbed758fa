"""Objectives under transformations: jax.export, jax.jit of parts of a step, jax.checkpoint in a term."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax import export, lax

from at_jax import gradients
from at_jax.errors import UserError
from at_jax.objective import Objective
from at_jax.terms import TERMS, GradientTransfer, MinL2, Term, View
from at_jax.terms.view import view_network

SIZE = 4
BATCH = tiny.batch(SIZE)
IMAGES = tiny.prepare(None, BATCH["image"], None)
LABELS = jnp.asarray(BATCH["label"])
KEYS = jax.random.split(jax.random.key(0), SIZE)
STUDENT, TEACHER = tiny.TinyNet(), tiny.TinyNet((3, 4))


networks = functools.partial(tiny.networks, STUDENT, TEACHER)


def objective_of(name):
    """An objective with one term, and its weights."""
    terms = (TERMS[name](),) if name else ()
    objective = Objective(STUDENT, TEACHER, terms, tiny.POINTS)
    return objective, dict.fromkeys(objective.weighted_terms, 1.0)


@pytest.mark.parametrize("name", ["", *TERMS])
def test_objective_is_exported_with_a_symbolic_batch(name):
    objective, weights = objective_of(name)
    fixed = networks()

    def loss(images, labels, keys):
        value, outputs = objective(*fixed, images, labels, weights, jax.random.wrap_key_data(keys))
        return value, outputs.terms

    (size,) = export.symbolic_shape("b")
    shapes = (
        jax.ShapeDtypeStruct((size, *IMAGES.shape[1:]), IMAGES.dtype),
        jax.ShapeDtypeStruct((size,), LABELS.dtype),
        jax.ShapeDtypeStruct((size, 2), jnp.uint32),
    )
    exported = export.export(jax.jit(loss))(*shapes)
    assert {each.shape for each in exported.out_avals} == {(), (size,)}


def test_objective_of_no_examples_returns_no_terms():
    objective, weights = objective_of("gradient_at")
    _, outputs = objective(*networks(), IMAGES[:0], LABELS[:0], weights)
    assert outputs.terms["gradient_at"].shape == (0,)


def test_objective_with_keys_of_no_examples_raises_user_error():
    objective, weights = objective_of("at")
    with pytest.raises(UserError, match="one PRNG key per example, got none: skip an empty batch"):
        objective(*networks(), IMAGES[:0], LABELS[:0], weights, KEYS[:0])


def in_scan(function):
    return lambda x: lax.scan(lambda carry, _: (carry, function(x)), 0, None, length=1)[1][0]


def in_cond(function):
    return lambda x: lax.cond(jnp.sum(LABELS) >= 0, function, lambda _: 0.0, x)


def in_vmap(function):
    return lambda x: jax.vmap(function)(jax.tree.map(lambda leaf: leaf[None], x))[0]


def in_grad(function):
    return lambda x: jax.value_and_grad(function)(x)[0]


WRAPPERS = {
    "grad": in_grad,
    "jit": jax.jit,
    "checkpoint": jax.checkpoint,
    "grad of checkpoint": lambda function: in_grad(jax.checkpoint(function)),
    "scan": in_scan,
    "cond": in_cond,
    "vmap": in_vmap,
}


def losses_of_two_students(wrap, params):
    """Losses of two students of one view of the teacher, each in its own transformation."""
    _, collections, teacher = networks()
    objective = Objective(STUDENT, TEACHER, (GradientTransfer(temperature=4.0), MinL2()))
    weights = {"gradient_at": 1.0, "min_l2": 1.0}
    view = objective.view_teacher(teacher, IMAGES, LABELS)

    def loss(scale, params):
        scaled = jax.tree.map(lambda leaf: scale * leaf, params)
        return objective(scaled, collections, view, IMAGES, LABELS, weights)[0]

    # Not cached as one function: each is traced.
    return [wrap(functools.partial(loss, scale))(params) for scale in (1.0, 1.1)]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_view_of_the_teacher_serves_students_in_their_own_transformations(wrapper):
    params = networks()[0]
    expected = tiny.jit(lambda p: losses_of_two_students(lambda f: f, p))(params)
    found = tiny.jit(lambda p: losses_of_two_students(WRAPPERS[wrapper], p))(params)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_view_of_the_teacher_outside_of_jit_serves_several_programs():
    params, collections, teacher = networks()
    objective = Objective(STUDENT, TEACHER, (GradientTransfer(),))
    view = objective.view_teacher(teacher, IMAGES, LABELS)

    def loss(params, teacher):
        return objective(params, collections, teacher, IMAGES, LABELS, {"gradient_at": 1.0})[0]

    expected = tiny.jit(loss)(params, teacher)
    for factor in (1, 2):
        found = tiny.jit(lambda p, factor=factor: factor * loss(p, view))(params)
        np.testing.assert_allclose(found, factor * expected, rtol=1e-5)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_students_in_their_own_transformations_share_the_gradient_of_the_teacher(
    wrapper, monkeypatch
):
    computed, transpose = [], View._transpose

    def note(self, of):
        computed.append(self._frozen)
        return transpose(self, of)

    monkeypatch.setattr(View, "_transpose", note)
    jax.eval_shape(lambda p: losses_of_two_students(WRAPPERS[wrapper], p), networks()[0])
    assert computed.count(True) == 1 and computed.count(False) == 4  # two students, T = 1 and 4


@dataclasses.dataclass(frozen=True)
class Checkpointed(Term):
    """The penalty of min-l2, and that of another function, within a transformation of the term."""

    name = "checkpointed"
    needs_teacher = False
    wrapper: str = "checkpoint"

    def values(self, batch, params):
        def penalty(scale):
            own = gradients.gradient_penalty(batch.student.gradient())
            other = gradients.gradient_penalty(batch.student.gradient(first_logit))
            return scale * (own + other + batch.student.cross_entropy)

        wrap = {"jit": jax.jit, "checkpoint": jax.checkpoint, "scan": in_scan, "vmap": in_vmap}
        before, after = (wrap[self.wrapper](penalty)(jnp.ones(())) for _ in range(2))
        return before + after + gradients.gradient_penalty(batch.student.gradient(first_logit))


def first_logit(logits):
    return logits[:, 0]


@pytest.mark.parametrize("wrapper", ["jit", "checkpoint", "scan", "vmap"])
def test_term_in_a_transformation_shares_a_view_with_other_terms(wrapper):
    params, collections, _ = networks()
    objective = Objective(STUDENT, terms=(Checkpointed(wrapper), MinL2()))
    weights = dict.fromkeys(objective.weighted_terms, 1.0)

    def loss(params):
        return objective(params, collections, None, IMAGES, LABELS, weights)

    (_, outputs), gradient = tiny.jit(jax.value_and_grad(loss, has_aux=True))(params)
    view = jax.jit(lambda p: view_of(p).gradient(first_logit))(params)
    other = gradients.gradient_penalty(view)
    found = outputs.terms
    expected = 2 * (found["min_l2"] + found["cross_entropy"]) + 3 * other
    np.testing.assert_allclose(found["checkpointed"], expected, rtol=1e-4)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def view_of(params):
    """The student's pass in training mode."""
    variables = {"params": params["student"], **networks()[1]}
    return view_network(STUDENT, variables, IMAGES, LABELS, train=True, mutable=["batch_stats"])
