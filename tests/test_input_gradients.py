"""The objective's terms on the input gradient J: by hand, at zero, applied once, and what they need."""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from at_jax.objective import Objective
from at_jax.terms import Attention, Distillation, InputGradient

BATCH = tiny.batch(4)
IMAGES = tiny.prepare(None, BATCH["image"], None)
LABELS = jnp.asarray(BATCH["label"])
STUDENT, TEACHER = tiny.TinyNet(), tiny.TinyNet((5, 6))
TERMS = ("gradient_at", "flip_symmetry", "min_l2")


def objective(names=TERMS, student=STUDENT, teacher=TEACHER, squared=False, **others):
    terms = dict.fromkeys(names, InputGradient(squared))
    return Objective(student, teacher, points=tiny.POINTS, **terms, **others)


@functools.cache
def networks():
    """Parameters and statistics of the student, variables of the teacher."""
    created = tiny.create(objective())
    return created.params, created.batch_stats, tiny.teacher_variables(objective())


def evaluate(terms, weight=1.0, images=IMAGES, labels=LABELS):
    """Loss and outputs."""
    params, batch_stats, teacher = networks()
    weights = dict.fromkeys(terms.weighted_terms, jnp.asarray(weight))
    return tiny.jit(terms)(params, batch_stats, teacher, images, labels, weights)


@functools.cache
def by_hand():
    """J of the student (training mode), the same at the mirrored images, of the teacher in each mode."""

    @tiny.jit
    def run(params, batch_stats, teacher):
        student = {"params": params["student"], "batch_stats": batch_stats}

        def j(net, variables, images, train):
            def total(x):
                logits, _ = net.apply(variables, x, train=train, mutable=["batch_stats"])
                return -jnp.sum(jax.nn.log_softmax(logits)[jnp.arange(4), LABELS])

            return jax.grad(total)(images)

        mirrored = IMAGES[:, :, ::-1]
        return {
            "student": j(STUDENT, student, IMAGES, True),
            "mirrored": j(STUDENT, student, mirrored, True),
            "teacher": j(TEACHER, teacher, IMAGES, False),
            "teacher in training": j(TEACHER, teacher, IMAGES, True),
        }

    return run(*networks())


@functools.cache
def plain():
    """Loss and outputs without any of the terms."""
    return evaluate(Objective(STUDENT))


def half_norms(x, squared):
    squares = np.sum(np.square(x, dtype=np.float64), axis=(1, 2, 3))
    return squares / 2 if squared else np.sqrt(squares) / 2


def expected(name, squared, teacher="teacher"):
    j = by_hand()
    difference = {
        "gradient_at": j["student"] - j[teacher],
        "flip_symmetry": j["student"] - j["mirrored"][:, :, ::-1],
        "min_l2": j["student"],
    }
    return half_norms(difference[name], squared)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("names", [*((name,) for name in TERMS), TERMS], ids="+".join)
def test_terms_are_those_of_j_and_weigh_once(names, squared):
    terms = objective(names, squared=squared)
    assert terms.weighted_terms == names
    loss, outputs = evaluate(terms, weight=25.0)
    hard = plain()[1].terms["cross_entropy"]
    assert set(outputs.terms) == {"cross_entropy", *names}
    np.testing.assert_allclose(outputs.terms["cross_entropy"], hard, rtol=1e-5)
    for name in names:
        wanted = expected(name, squared)
        np.testing.assert_allclose(outputs.terms[name], wanted, rtol=1e-4)
    total = sum(np.mean(expected(name, squared)) for name in names)
    np.testing.assert_allclose(loss, np.mean(hard) + 25 * total, rtol=1e-4)
    # One forward pass: logits and statistics are where a plain step puts them, the mirror's dropped.
    np.testing.assert_allclose(outputs.logits, plain()[1].logits, rtol=1e-4, atol=1e-6)
    moved = outputs.batch_stats
    assert tiny.largest_deviation(moved, plain()[1].batch_stats) < 1e-5
    assert tiny.largest_deviation(moved, networks()[1]) > 1e-2


def test_the_teacher_s_j_is_of_its_eval_mode():
    # What by_hand() compares with: in training mode the teacher's J is another one altogether.
    training = expected("gradient_at", False, "teacher in training")
    assert np.min(np.abs(training / expected("gradient_at", False) - 1)) > 0.02


def test_j_is_of_the_cross_entropy_beside_distillation_and_attention():
    beside = {"distillation": Distillation(temperature=3.0, alpha=0.7), "attention": Attention()}
    terms = objective(**beside)
    assert terms.weighted_terms == ("attention", *TERMS)
    loss, outputs = evaluate(terms, weight=2.0)
    assert set(outputs.terms) == {"distillation", "attention", *TERMS}
    for name in TERMS:
        np.testing.assert_allclose(outputs.terms[name], expected(name, False), rtol=1e-4)
    means = {name: np.mean(term) for name, term in outputs.terms.items()}
    total = means.pop("distillation") + 2 * sum(means.values())
    np.testing.assert_allclose(loss, total, rtol=1e-5)
    # The others are what they are without the terms on J.
    _, without = evaluate(objective((), **beside))
    for name in beside:
        np.testing.assert_allclose(outputs.terms[name], without.terms[name], rtol=1e-4)


@pytest.mark.parametrize(
    ("names", "forwards"),
    [((), 1), (("gradient_at",), 1), (("min_l2",), 1), (("flip_symmetry",), 2), (TERMS, 2)],
)
def test_applications_of_the_networks(names, forwards):
    params, batch_stats, teacher = networks()
    applied = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, tiny.TinyNet) and context.method_name == "__call__":
            applied.append((context.module.widths, kwargs["train"]))
        return call(*args, **kwargs)

    def loss(params):
        weights = dict.fromkeys(names, 1.0)
        return objective(names)(params, batch_stats, teacher, IMAGES, LABELS, weights)[0]

    with nn.intercept_methods(note):
        jax.eval_shape(jax.grad(loss), params)
    assert sorted(applied) == [((3, 4), True)] * forwards + [((5, 6), False)]


def test_nothing_reaches_the_teacher():
    params, batch_stats, teacher = networks()

    def loss(params, teacher):
        weights = {"gradient_at": jnp.asarray(10.0)}
        return objective(("gradient_at",))(params, batch_stats, teacher, IMAGES, LABELS, weights)[0]

    by_student, by_teacher = tiny.jit(jax.grad(loss, argnums=(0, 1)))(params, teacher)
    assert all(jnp.all(leaf == 0) for leaf in jax.tree.leaves(by_teacher))
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(by_student))


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_where_a_norm_is_zero(batch_norm, squared):
    net = tiny.TinyNet(batch_norm=batch_norm)
    terms = objective(student=net, teacher=net, squared=squared)
    created = tiny.create(terms)
    zeros = jax.tree.map(jnp.zeros_like, created.params)
    other = tiny.teacher_variables(terms)
    twin = {"params": created.params["student"], "batch_stats": created.batch_stats}

    @tiny.jit
    def run(params, teacher, images, labels, weight):
        weights = dict.fromkeys(terms.weighted_terms, weight)
        function = jax.value_and_grad(terms, has_aux=True)
        return function(params, created.batch_stats, teacher, images, labels, weights)

    blank = {"params": zeros["student"], "batch_stats": created.batch_stats}
    for params, teacher, images, vanishing in (
        # Without batch statistics, to rounding, a student that equals its teacher has its J.
        (created.params, twin, IMAGES, () if batch_norm else ("gradient_at",)),
        (zeros, other, IMAGES, ("flip_symmetry", "min_l2")),
        (zeros, blank, IMAGES, TERMS),
        # No biases: every ReLU is at 0, where it passes nothing on.
        (created.params, other, jnp.zeros_like(IMAGES), TERMS),
        (created.params, other, IMAGES[:1], ()),
    ):
        arguments = params, teacher, images, LABELS[: len(images)]
        (loss, outputs), gradient = run(*arguments, jnp.asarray(1.0))
        chex.assert_tree_all_finite((loss, outputs, gradient))
        for name, term in outputs.terms.items():
            if name in vanishing:
                np.testing.assert_allclose(term, np.zeros(len(images)), atol=1e-6)
            else:
                assert np.all(term > 1e-5), name
        if vanishing == TERMS:
            # The terms add nothing where their norm is exactly 0: the cross-entropy's gradient is left.
            _, without = run(*arguments, jnp.asarray(0.0))
            chex.assert_trees_all_equal(gradient, without)


@pytest.mark.parametrize("name", ["flip_symmetry", "min_l2"])
def test_terms_that_need_no_teacher(name):
    params, batch_stats, _ = networks()
    terms = Objective(STUDENT, **{name: InputGradient()})
    weights = {name: jnp.asarray(1.0)}
    _, outputs = tiny.jit(terms)(params, batch_stats, None, IMAGES, LABELS, weights)
    np.testing.assert_allclose(outputs.terms[name], expected(name, False), rtol=1e-4)


def test_the_term_of_an_image_does_not_depend_on_its_batch():
    # Without batch statistics; were J the gradient of a mean, a quarter of it would be left.
    net = tiny.TinyNet(batch_norm=False)
    terms = objective(student=net, teacher=net)
    params, teacher = tiny.create(terms).params, tiny.teacher_variables(terms)

    def of(images, labels):
        _, outputs = tiny.jit(terms)(
            params, {}, teacher, images, labels, dict.fromkeys(TERMS, jnp.asarray(1.0))
        )
        return outputs.terms

    whole, alone = of(IMAGES, LABELS), of(IMAGES[:1], LABELS[:1])
    for name in TERMS:
        np.testing.assert_allclose(whole[name][:1], alone[name], rtol=1e-4)


def test_what_the_terms_need_is_asked_for():
    with pytest.raises(ValueError, match="need a teacher, got None"):
        Objective(STUDENT, gradient_at=InputGradient())
    for name in TERMS:
        terms = objective((name,))
        with pytest.raises(ValueError, match="need floating-point images, got uint8: normalise"):
            evaluate(terms, images=jnp.asarray(BATCH["image"]))
        with pytest.raises(ValueError, match=r"squared must be True .* got 2"):
            evaluate(dataclasses.replace(terms, **{name: InputGradient(squared=2)}))


def test_the_form_is_part_of_the_static_argument():
    assert objective() == objective() and hash(objective()) == hash(objective())
    assert objective(squared=True) != objective()
