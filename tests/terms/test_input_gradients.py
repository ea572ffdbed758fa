"""Terms on the input gradient J: by hand, at a temperature, where a norm is zero, and their needs."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from at_jax import losses
from at_jax.errors import UserError
from at_jax.objective import Objective
from at_jax.terms import TERMS, AttentionTransfer, Distillation, GradientTransfer

BATCH = tiny.batch(4)
IMAGES = tiny.prepare(None, BATCH["image"], None)
LABELS = jnp.asarray(BATCH["label"])
STUDENT, TEACHER = tiny.TinyNet(), tiny.TinyNet((5, 6))
NAMES = ("gradient_at", "flip_symmetry", "min_l2")


def objective(names=NAMES, student=STUDENT, teacher=TEACHER, others=(), **options):
    terms = (*others, *(TERMS[name](**options) for name in names))
    return Objective(student, teacher, terms, tiny.POINTS)


@functools.cache
def networks():
    """Parameters and collections of the student, variables of the teacher."""
    created = tiny.create(objective())
    return created.params, created.collections, tiny.teacher_variables(objective())


def evaluate(objective, weight=1.0, images=IMAGES, labels=LABELS):
    """Loss and outputs."""
    params, collections, teacher = networks()
    weights = dict.fromkeys(objective.weighted_terms, jnp.asarray(weight))
    return tiny.jit(objective)(params, collections, teacher, images, labels, weights)


@functools.cache
def by_hand(temperature=1.0):
    """J of the student (training mode), the same at the mirrored images, of the teacher in each mode."""

    @tiny.jit
    def run(params, collections, teacher):
        student = {"params": params["student"], **collections}

        def j(net, variables, images, train):
            def total(x):
                logits, _ = net.apply(variables, x, train=train, mutable=["batch_stats"])
                chosen = jax.nn.log_softmax(logits / temperature)[jnp.arange(4), LABELS]
                return -temperature * jnp.sum(chosen)

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


def expected(name, squared=False, teacher="teacher", temperature=1.0):
    j = by_hand(temperature)
    difference = {
        "gradient_at": j["student"] - j[teacher],
        "flip_symmetry": j["student"] - j["mirrored"][:, :, ::-1],
        "min_l2": j["student"],
    }
    return half_norms(difference[name], squared)


@pytest.mark.parametrize("squared", [False, True])
def test_terms_equal_norms_of_j_and_are_weighted_once(squared):
    terms = objective(squared=squared)
    assert terms.weighted_terms == NAMES
    loss, outputs = evaluate(terms, weight=25.0)
    hard = plain()[1].terms["cross_entropy"]
    assert set(outputs.terms) == {"cross_entropy", *NAMES}
    np.testing.assert_allclose(outputs.terms["cross_entropy"], hard, rtol=1e-5)
    for name in NAMES:
        np.testing.assert_allclose(outputs.terms[name], expected(name, squared), rtol=1e-4)
    total = sum(np.mean(expected(name, squared)) for name in NAMES)
    np.testing.assert_allclose(loss, np.mean(hard) + 25 * total, rtol=1e-4)
    # Logits and statistics are those of a plain step; those of the mirrored images are discarded.
    np.testing.assert_allclose(outputs.logits, plain()[1].logits, rtol=1e-4, atol=1e-6)
    moved = outputs.collections
    assert tiny.largest_deviation(moved, plain()[1].collections) < 1e-5
    assert tiny.largest_deviation(moved, networks()[1]) > 1e-2


def test_gradient_at_with_batch_norm_uses_the_teacher_s_evaluation_mode():
    # by_hand() compares with that mode: in training mode the teacher's J differs.
    training = expected("gradient_at", teacher="teacher in training")
    assert np.min(np.abs(training / expected("gradient_at") - 1)) > 0.02


def test_j_with_distillation_and_attention_is_of_the_cross_entropy():
    others = (Distillation(temperature=3.0, alpha=0.7), AttentionTransfer())
    terms = objective(others=others)
    assert terms.weighted_terms == ("at", *NAMES)
    loss, outputs = evaluate(terms, weight=2.0)
    assert set(outputs.terms) == {"distillation", "attention", *NAMES}
    for name in NAMES:
        np.testing.assert_allclose(outputs.terms[name], expected(name), rtol=1e-4)
    means = {name: np.mean(term) for name, term in outputs.terms.items()}
    total = means.pop("distillation") + 2 * sum(means.values())
    np.testing.assert_allclose(loss, total, rtol=1e-5)
    logits_t = tiny.jit(TEACHER.apply)(networks()[2], IMAGES)
    soft = losses.distillation(outputs.logits, logits_t, LABELS, temperature=3.0, alpha=0.7)
    np.testing.assert_allclose(outputs.terms["distillation"], soft, rtol=1e-4)


def test_terms_at_a_temperature_equal_norms_of_the_tempered_j():
    terms = objective(temperature=4.0)
    _, outputs = evaluate(terms)
    for name in NAMES:
        wanted = expected(name, temperature=4.0)
        np.testing.assert_allclose(outputs.terms[name], wanted, rtol=1e-4)
        assert np.max(np.abs(wanted / expected(name) - 1)) > 0.05
    # Reported: the norms of what they compare, of each network that they read.
    j = by_hand(4.0)
    norms = {f"gradient_norm_student/{name}": 2 * half_norms(j["student"], False) for name in NAMES}
    norms["gradient_norm_teacher/gradient_at"] = 2 * half_norms(j["teacher"], False)
    assert set(outputs.measures) == set(norms)
    for name, wanted in norms.items():
        np.testing.assert_allclose(outputs.measures[name], wanted, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(
        outputs.terms["cross_entropy"], plain()[1].terms["cross_entropy"], rtol=1e-5
    )


SQUARED = tuple(
    type(f"Squared{name}", (TERMS[name],), {"name": f"{name}_squared"})(squared=True)
    for name in NAMES
)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_terms_whose_norm_is_zero_have_finite_gradients(batch_norm):
    net = tiny.TinyNet(batch_norm=batch_norm)
    terms = objective(student=net, teacher=net, others=SQUARED)
    created = tiny.create(terms)
    zeros = jax.tree.map(jnp.zeros_like, created.params)
    other = tiny.teacher_variables(terms)

    @tiny.jit
    def run(params, teacher, images, weight):
        weights = dict.fromkeys(terms.weighted_terms, weight)
        function = jax.value_and_grad(terms, has_aux=True)
        return function(params, created.collections, teacher, images, LABELS, weights)

    def as_teacher(params):
        return {"params": params["student"], "batch_stats": {}, **created.collections}

    for params, teacher, images, vanishing in (
        # Without batch statistics, to rounding, a student that equals its teacher has its J.
        (
            created.params,
            as_teacher(created.params),
            IMAGES,
            () if batch_norm else ("gradient_at",),
        ),
        (zeros, other, IMAGES, ("flip_symmetry", "min_l2")),
        (zeros, as_teacher(zeros), IMAGES, NAMES),
        # No biases: every ReLU is at 0, where its derivative is 0.
        (created.params, other, jnp.zeros_like(IMAGES), NAMES),
    ):
        (loss, outputs), gradient = run(params, teacher, images, jnp.asarray(1.0))
        chex.assert_tree_all_finite((loss, outputs, gradient))
        for name, term in outputs.terms.items():
            if name.removesuffix("_squared") in vanishing:
                np.testing.assert_allclose(term, np.zeros(len(images)), atol=1e-6)
            else:
                assert np.all(term > 1e-6), name
        if vanishing == NAMES:
            # Where their norm is exactly 0 the terms add nothing to the gradient of the cross-entropy.
            _, without = run(params, teacher, images, jnp.asarray(0.0))
            chex.assert_trees_all_equal(gradient, without)


def test_terms_without_a_teacher_equal_those_with_one():
    params, collections, _ = networks()
    names = ("flip_symmetry", "min_l2")
    terms = Objective(STUDENT, terms=tuple(TERMS[name]() for name in names))
    weights = dict.fromkeys(names, jnp.asarray(1.0))
    _, outputs = tiny.jit(terms)(params, collections, None, IMAGES, LABELS, weights)
    for name in names:
        np.testing.assert_allclose(outputs.terms[name], expected(name), rtol=1e-4)


def test_terms_of_an_image_do_not_depend_on_its_batch():
    # Without batch statistics; were J the gradient of a mean, a quarter of it would be left.
    net = tiny.TinyNet(batch_norm=False)
    names = (*NAMES, "jacobian", "sobolev", "map_gradient")
    terms = objective(names, student=net, teacher=net)
    params, teacher = tiny.create(terms).params, tiny.teacher_variables(terms)
    keys = jax.random.split(jax.random.key(0), 4)

    def of(images, labels, keys):
        weights = dict.fromkeys(names, jnp.asarray(1.0))
        return tiny.jit(terms)(params, {}, teacher, images, labels, weights, keys)[1].terms

    whole, alone = of(IMAGES, LABELS, keys), of(IMAGES[:1], LABELS[:1], keys[:1])
    for name in names:
        np.testing.assert_allclose(whole[name][:1], alone[name], rtol=1e-4)


def test_gradient_at_without_a_teacher_raises_usererror():
    with pytest.raises(UserError, match="for gradient_at, the objective must have a teacher, got"):
        Objective(STUDENT, terms=(GradientTransfer(),))


@pytest.mark.parametrize("name", NAMES)
def test_terms_with_squared_that_is_no_bool_raise_usererror(name):
    with pytest.raises(UserError, match=r"squared must be True .* got 2"):
        arguments = *networks(), IMAGES, LABELS, {name: 1.0}
        jax.eval_shape(objective((name,), squared=2), *arguments)


def test_objectives_with_equal_options_are_one_static_argument():
    assert objective() == objective() and hash(objective()) == hash(objective())
    assert objective(squared=True) != objective() != objective(temperature=2.0)
