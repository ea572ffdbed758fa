"""Objectives under transformations of the caller: jax.export, and no examples."""

import jax
import jax.numpy as jnp
import pytest
import tiny
from jax import export

from at_jax.errors import UserError
from at_jax.objective import Objective
from at_jax.terms import TERMS

SIZE = 4
BATCH = tiny.batch(SIZE)
IMAGES = tiny.prepare(None, BATCH["image"], None)
LABELS = jnp.asarray(BATCH["label"])
KEYS = jax.random.split(jax.random.key(0), SIZE)
STUDENT, TEACHER = tiny.TinyNet(), tiny.TinyNet((3, 4))


def networks():
    """Parameters and collections of the student, variables of the teacher."""
    objective = tiny.objective(STUDENT, TEACHER)
    created = tiny.create(objective)
    return created.params, created.collections, tiny.teacher_variables(objective)


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
