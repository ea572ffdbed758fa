"""The objective: which terms there are, each weighted once, and a teacher that nothing reaches."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from at_jax import intermediates, losses
from at_jax.models import Adapter
from at_jax.objective import Objective
from at_jax.terms import Attention, Distillation

BATCH = tiny.batch(4)
IMAGES = tiny.prepare(None, BATCH["image"], None)
LABELS = jnp.asarray(BATCH["label"])
STUDENT, TEACHER = tiny.TinyNet(), tiny.TinyNet((5, 6))


@functools.cache
def networks():
    """Variables of student and teacher."""
    terms = tiny.objective(STUDENT, TEACHER)
    created = tiny.create(terms)
    return created.params, created.batch_stats, tiny.teacher_variables(terms)


def evaluate(terms, weights=None, params=None):
    """Loss, outputs, and the gradient by the student's parameters."""
    student, batch_stats, teacher = networks()
    weights = dict.fromkeys(terms.weighted_terms, 1.0) if weights is None else weights
    weights = {name: jnp.asarray(weight) for name, weight in weights.items()}

    @tiny.jit
    def run(params, weights):
        return jax.value_and_grad(terms, has_aux=True)(
            params, batch_stats, teacher, IMAGES, LABELS, weights
        )

    (loss, outputs), gradient = run(params or student, weights)
    return loss, outputs, gradient


@functools.cache
def activations():
    """Logits and taps of student (training mode) and teacher (evaluation mode), by hand."""

    @tiny.jit
    def forward(params, batch_stats, teacher):
        variables = {"params": params["student"], "batch_stats": batch_stats}
        mutable = ["batch_stats", "intermediates"]
        logits_s, of_s = STUDENT.apply(variables, IMAGES, train=True, mutable=mutable)
        logits_t, of_t = TEACHER.apply(teacher, IMAGES, train=False, mutable=["intermediates"])
        taps = intermediates.collect(of_s), intermediates.collect(of_t)
        return logits_s, logits_t, *taps, of_s["batch_stats"]

    return forward(*networks())


def test_terms_are_the_losses_and_weigh_once():
    logits_s, logits_t, taps_s, taps_t, moved = activations()
    soft = Distillation(temperature=3.0, alpha=0.7)
    attention = Attention(kind="max", p=1, convention="paper")
    terms = tiny.objective(STUDENT, TEACHER, distillation=soft, attention=attention)
    assert terms.weighted_terms == ("attention",)
    loss, outputs, _ = evaluate(terms, {"attention": 25.0})

    hard = losses.distillation(logits_s, logits_t, LABELS, temperature=3.0, alpha=0.7)
    options = {"kind": "max", "p": 1, "convention": "paper"}
    points = [losses.attention_transfer(taps_s[n], taps_t[n], **options) for n in ("early", "late")]
    assert set(outputs.terms) == {"distillation", "attention"}
    np.testing.assert_allclose(outputs.terms["distillation"], hard, rtol=1e-4)
    np.testing.assert_allclose(outputs.terms["attention"], sum(points), rtol=1e-4)
    # loss = mean(hard) + beta * mean(sum over points): means over the batch, not over the points.
    np.testing.assert_allclose(loss, jnp.mean(hard) + 25 * jnp.mean(sum(points)), rtol=1e-4)
    np.testing.assert_allclose(outputs.logits, logits_s, rtol=1e-4, atol=1e-5)
    # One forward pass: statistics are where one training pass puts them.
    assert tiny.largest_deviation(outputs.batch_stats, moved) < 1e-5
    for weight in (0.0, 50.0):
        other, again, _ = evaluate(terms, {"attention": weight})
        expected = jnp.mean(hard) + weight * jnp.mean(sum(points))
        np.testing.assert_allclose(other, expected, rtol=1e-4)
        chex.assert_trees_all_close(again.terms, outputs.terms, rtol=1e-5)


def test_cross_entropy_alone():
    loss, outputs, _ = evaluate(Objective(STUDENT))
    expected = losses.cross_entropy(activations()[0], LABELS)
    assert set(outputs.terms) == {"cross_entropy"} and Objective(STUDENT).weighted_terms == ()
    np.testing.assert_allclose(outputs.terms["cross_entropy"], expected, rtol=1e-4)
    np.testing.assert_allclose(loss, jnp.mean(expected), rtol=1e-4)


def test_full_activation_transfer_through_an_adapter():
    _, _, taps_s, taps_t, _ = activations()
    adapter = Adapter((("early", 5), ("late", 6)))
    terms = Objective(STUDENT, TEACHER, tiny.POINTS, activation=True, adapter=adapter)
    adapted = adapter.init(jax.random.key(2), taps_s)
    student, _, _ = networks()
    params = {"student": student["student"], "adapter": adapted["params"]}
    loss, outputs, gradient = evaluate(terms, {"activation": 3.0}, params)
    brought = adapter.apply(adapted, taps_s)
    points = [losses.activation_transfer(brought[n], taps_t[n]) for n in ("early", "late")]
    np.testing.assert_allclose(outputs.terms["activation"], sum(points), rtol=1e-4)
    hard = outputs.terms["cross_entropy"]
    np.testing.assert_allclose(loss, jnp.mean(hard) + 3 * jnp.mean(sum(points)), rtol=1e-4)
    assert all(jnp.any(g != 0) for g in jax.tree.leaves(gradient["adapter"]))
    # Without one, where channels agree, activations are compared as they are.
    same = Objective(TEACHER, TEACHER, tiny.POINTS, activation=True)
    teacher = networks()[2]
    _, outputs = same(
        {"student": teacher["params"], "adapter": {}}, teacher["batch_stats"], teacher, IMAGES, LABELS,
        {"activation": 1.0},
    )  # fmt: skip
    assert outputs.terms["activation"].shape == (4,)
    with pytest.raises(ValueError, match="adapt the channels with a 1x1 convolution"):
        evaluate(dataclasses.replace(terms, adapter=None), {"activation": 1.0})


def test_points_by_name():
    _, _, taps_s, taps_t, _ = activations()
    # Another network with other names; late (3x3) is compared with early (6x6), which is resized.
    teacher = TEACHER.clone(points=("low", "high"))
    terms = Objective(STUDENT, teacher, (("late", "low"),), attention=Attention())
    _, outputs, _ = evaluate(terms)
    expected = losses.attention_transfer(taps_s["late"], taps_t["early"])
    np.testing.assert_allclose(outputs.terms["attention"], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (("deep", "late"), "student has no transfer point 'deep'; it taps 'early', 'late'"),
        (("late", "deep"), "teacher has no transfer point 'deep'; it taps 'early', 'late'"),
    ],
)
def test_missing_points(point, message):
    terms = Objective(STUDENT, TEACHER, (*tiny.POINTS, point), attention=Attention())
    with pytest.raises(ValueError, match=message):
        evaluate(terms)
    # Points that nothing asks for are no error.
    evaluate(dataclasses.replace(terms, attention=None, distillation=Distillation()), {})


def test_nothing_reaches_the_teacher():
    terms = tiny.objective(STUDENT, TEACHER, distillation=Distillation(), attention=Attention())
    params, batch_stats, teacher = networks()

    def loss(params, teacher):
        weights = {"attention": jnp.asarray(10.0)}
        return terms(params, batch_stats, teacher, IMAGES, LABELS, weights)[0]

    by_student, by_teacher = tiny.jit(jax.grad(loss, argnums=(0, 1)))(params, teacher)
    assert all(jnp.all(leaf == 0) for leaf in jax.tree.leaves(by_teacher))
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(by_student["student"]["conv0"]))
    # In eval mode: its answer for an image does not depend on the rest of the batch.
    whole, _, _ = terms.teach(teacher, IMAGES, LABELS)
    alone, _, _ = terms.teach(teacher, IMAGES[:1], LABELS[:1])
    np.testing.assert_allclose(whole[:1], alone, rtol=1e-5, atol=1e-6)


def test_equal_objectives_are_one_static_argument():
    def make():
        return tiny.objective(tiny.TinyNet(), tiny.TinyNet((5, 6)), attention=Attention(p=1))

    assert make() == make() and hash(make()) == hash(make())
    assert make() != tiny.objective(tiny.TinyNet(), tiny.TinyNet((5, 6)))


def test_what_the_terms_need_is_asked_for_at_once():
    net = tiny.TinyNet()
    with pytest.raises(ValueError, match="need a teacher, got None"):
        Objective(net, distillation=Distillation())
    with pytest.raises(ValueError, match="attention need transfer points, got none"):
        Objective(net, net, attention=Attention())
    terms = tiny.objective(STUDENT, TEACHER)
    with pytest.raises(
        ValueError, match="got none for attention: pass weights={'attention': beta}"
    ):
        terms(*networks(), IMAGES, LABELS, {"atention": 1.0})
