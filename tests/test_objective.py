"""The objective: its terms and their weights, points of both networks, and a frozen teacher."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from at_jax import intermediates, losses
from at_jax.errors import UserError
from at_jax.models import Adapter
from at_jax.objective import Objective
from at_jax.terms import ActivationTransfer, AttentionTransfer, Distillation, GradientTransfer

BATCH = tiny.batch(4)
IMAGES = tiny.prepare(None, BATCH["image"], None)
LABELS = jnp.asarray(BATCH["label"])
STUDENT, TEACHER = tiny.TinyNet(), tiny.TinyNet((5, 6))


networks = functools.partial(tiny.networks, STUDENT, TEACHER)


@functools.cache
def compiled(objective, differentiate):
    """(params, weights) -> (loss, outputs), and the gradient with respect to the trained parameters."""
    _, collections, teacher = networks()
    function = jax.value_and_grad(objective, has_aux=True) if differentiate else objective
    return tiny.jit(
        lambda params, weights: function(params, collections, teacher, IMAGES, LABELS, weights)
    )


def evaluate(objective, weights=None, params=None, *, differentiate=False):
    """(loss, outputs), or ((loss, outputs), gradient)."""
    weights = dict.fromkeys(objective.weighted_terms, 1.0) if weights is None else weights
    weights = {name: jnp.asarray(weight) for name, weight in weights.items()}
    return compiled(objective, differentiate)(params or networks()[0], weights)


@functools.cache
def activations():
    """Logits and taps of student (training mode) and teacher (evaluation mode), by hand."""

    @tiny.jit
    def forward(params, collections, teacher):
        variables = {"params": params["student"], **collections}
        mutable = ["batch_stats", "intermediates"]
        logits_s, of_s = STUDENT.apply(variables, IMAGES, train=True, mutable=mutable)
        logits_t, of_t = TEACHER.apply(teacher, IMAGES, train=False, mutable=["intermediates"])
        taps = intermediates.collect(of_s), intermediates.collect(of_t)
        return logits_s, logits_t, *taps, of_s["batch_stats"]

    return forward(*networks())


def test_objective_of_two_terms_is_the_weighted_sum_of_their_means():
    logits_s, logits_t, taps_s, taps_t, moved = activations()
    soft = Distillation(temperature=3.0, alpha=0.7)
    attention = AttentionTransfer(kind="max", p=1, convention="paper")
    objective = tiny.objective(STUDENT, TEACHER, soft, attention)
    assert objective.weighted_terms == ("at",)
    loss, outputs = evaluate(objective, {"at": 25.0})

    hard = losses.distillation(logits_s, logits_t, LABELS, temperature=3.0, alpha=0.7)
    options = {"kind": "max", "p": 1, "convention": "paper"}
    points = [losses.attention_transfer(taps_s[n], taps_t[n], **options) for n in ("early", "late")]
    assert set(outputs.terms) == {"distillation", "attention"}
    np.testing.assert_allclose(outputs.terms["distillation"], hard, rtol=1e-4)
    np.testing.assert_allclose(outputs.terms["attention"], sum(points), rtol=1e-4)
    # loss = mean(hard) + beta * mean(sum over points): means over the batch, not over the points.
    np.testing.assert_allclose(loss, jnp.mean(hard) + 25 * jnp.mean(sum(points)), rtol=1e-4)
    np.testing.assert_allclose(outputs.logits, logits_s, rtol=1e-4, atol=1e-5)
    # The statistics are those of one forward pass in training mode.
    assert set(outputs.collections) == {"batch_stats"}
    assert tiny.largest_deviation(outputs.collections["batch_stats"], moved) < 1e-5
    for weight in (0.0, 50.0):
        other, again = evaluate(objective, {"at": weight})
        expected = jnp.mean(hard) + weight * jnp.mean(sum(points))
        np.testing.assert_allclose(other, expected, rtol=1e-4)
        chex.assert_trees_all_close(again.terms, outputs.terms, rtol=1e-5)


def test_objective_without_terms_is_the_cross_entropy():
    loss, outputs = evaluate(Objective(STUDENT))
    expected = losses.cross_entropy(activations()[0], LABELS)
    assert set(outputs.terms) == {"cross_entropy"} and Objective(STUDENT).weighted_terms == ()
    np.testing.assert_allclose(outputs.terms["cross_entropy"], expected, rtol=1e-4)
    np.testing.assert_allclose(loss, jnp.mean(expected), rtol=1e-4)


def test_objective_of_mixed_labels_is_the_mixture_of_the_losses():
    """Mixup: the cross-entropy is linear in the labels, and so is its part of distillation."""
    params, collections, teacher = networks()
    objective = tiny.objective(
        STUDENT, TEACHER, Distillation(temperature=3.0, alpha=0.7), GradientTransfer(squared=True)
    )
    one_hot = jax.nn.one_hot(LABELS, tiny.CLASSES)

    @tiny.jit
    def outputs_of(labels):
        return objective(params, collections, teacher, IMAGES, labels, {"gradient_at": 1.0})[1]

    a, b = outputs_of(LABELS), outputs_of(jnp.flip(LABELS))
    same, mixed = outputs_of(one_hot), outputs_of(0.25 * one_hot + 0.75 * jnp.flip(one_hot, axis=0))
    for name in a.terms:
        np.testing.assert_allclose(same.terms[name], a.terms[name], rtol=1e-4)
    expected = 0.25 * a.terms["distillation"] + 0.75 * b.terms["distillation"]
    np.testing.assert_allclose(mixed.terms["distillation"], expected, rtol=1e-4)
    assert mixed.terms["gradient_at"].shape == (4,)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_objective_with_a_share_of_distillation_mixes_in_the_cross_entropy(share):
    objective = tiny.objective(STUDENT, TEACHER, Distillation(alpha=0.7), AttentionTransfer())
    logits_s, logits_t, *_ = activations()
    soft = losses.distillation(logits_s, logits_t, LABELS, temperature=4.0, alpha=0.7)
    hard = losses.cross_entropy(logits_s, LABELS)
    (loss, outputs), gradient = evaluate(objective, {"kd": share, "at": 0.0}, differentiate=True)
    assert set(outputs.terms) == {"distillation", "cross_entropy", "attention"}
    np.testing.assert_allclose(outputs.terms["distillation"], soft, rtol=1e-4)
    np.testing.assert_allclose(outputs.terms["cross_entropy"], hard, rtol=1e-4)
    mean = share * jnp.mean(soft) + (1 - share) * jnp.mean(hard)
    np.testing.assert_allclose(loss, mean, rtol=1e-4)
    if share in (0, 1):  # before its first epoch the loss is the cross-entropy, then distillation
        alone = (
            tiny.objective(STUDENT, TEACHER, Distillation(alpha=0.7))
            if share
            else Objective(STUDENT)
        )
        _, expected = evaluate(alone, differentiate=True)
        assert tiny.largest_deviation(gradient, expected) < 1e-5


def test_activation_transfer_with_different_widths_compares_adapted_taps():
    _, _, taps_s, taps_t, _ = activations()
    adapter = Adapter((("early", 5), ("late", 6)))
    objective = tiny.objective(STUDENT, TEACHER, ActivationTransfer())
    assert objective.modules(taps_s, taps_t) == {"f_actt": adapter}
    adapted = tiny.filled(jax.eval_shape(adapter.init, jax.random.key(2), taps_s))
    student, _, _ = networks()
    params = {"student": student["student"], "f_actt": adapted["params"]}
    (loss, outputs), gradient = evaluate(objective, {"f_actt": 3.0}, params, differentiate=True)
    brought = tiny.jit(adapter.apply)(adapted, taps_s)
    points = [losses.activation_transfer(brought[n], taps_t[n]) for n in ("early", "late")]
    np.testing.assert_allclose(outputs.terms["activation"], sum(points), rtol=1e-4)
    hard = outputs.terms["cross_entropy"]
    np.testing.assert_allclose(loss, jnp.mean(hard) + 3 * jnp.mean(sum(points)), rtol=1e-4)
    assert all(jnp.any(g != 0) for g in jax.tree.leaves(gradient["f_actt"]))


def test_init_params_makes_the_parameters_of_terms_with_modules():
    student, _, teacher = networks()
    objective = tiny.objective(STUDENT, TEACHER, ActivationTransfer(), AttentionTransfer())
    variables = {"params": student["student"], "batch_stats": networks()[1]["batch_stats"]}
    params = objective.init_params(jax.random.key(3), variables, teacher, IMAGES)
    adapter = Adapter((("early", 5), ("late", 6)))
    expected = adapter.init(jax.random.key(3), activations()[2])["params"]
    chex.assert_trees_all_equal(params, {"student": student["student"], "f_actt": expected})
    evaluate(objective, {"f_actt": 1.0, "at": 1.0}, params)


class Counting(nn.Module):
    """A teacher that counts its calls, in evaluation mode too."""

    @nn.compact
    def __call__(self, images, *, train=False):
        calls = self.variable("cache", "calls", lambda: jnp.zeros((), jnp.int32))
        calls.value += 1
        return nn.Dense(tiny.CLASSES)(jnp.mean(images, axis=(1, 2)))


def test_teacher_may_update_a_collection_in_evaluation_mode():
    teacher = Counting().init(jax.random.key(0), IMAGES)
    objective = Objective(STUDENT, Counting(), (Distillation(),))
    params, collections, _ = networks()
    loss, _ = tiny.jit(objective)(params, collections, teacher, IMAGES, LABELS)
    assert jnp.isfinite(loss)


def test_activation_transfer_with_equal_widths_needs_no_adapter():
    teacher = networks()[2]
    same = tiny.objective(TEACHER, TEACHER, ActivationTransfer())
    taps_t = activations()[3]
    assert same.modules(taps_t, taps_t) == {}
    collections = {"batch_stats": teacher["batch_stats"]}
    params = {"student": teacher["params"]}
    _, outputs = tiny.jit(same)(params, collections, teacher, IMAGES, LABELS, {"f_actt": 1.0})
    # The same network, but normalized by the batch: the term is not 0.
    assert outputs.terms["activation"].shape == (4,) and jnp.all(outputs.terms["activation"] > 0)


def test_activation_transfer_with_one_student_point_twice_raises_usererror():
    points = (("late", "early"), ("late", "late"))
    objective = Objective(STUDENT, TEACHER, (ActivationTransfer(),), points)
    taps_s, taps_t = activations()[2:4]
    with pytest.raises(UserError, match="name each student point once"):
        objective.modules(taps_s, taps_t)


def test_points_with_different_names_and_sizes_are_compared_in_pairs():
    _, _, taps_s, taps_t, _ = activations()
    # late (3x3) is compared with a tap of another name (6x6), which is resized.
    teacher = TEACHER.clone(points=("low", "high"))
    _, outputs = evaluate(Objective(STUDENT, teacher, (AttentionTransfer(),), (("late", "low"),)))
    expected = losses.attention_transfer(taps_s["late"], taps_t["early"])
    np.testing.assert_allclose(outputs.terms["attention"], expected, rtol=1e-4)


def test_points_that_are_paths_of_submodules_are_captured():
    taps_s, taps_t = activations()[2:4]
    objective = Objective(
        STUDENT,
        TEACHER,
        (AttentionTransfer(),),
        (("bn1", "late"), ("late", "conv1")),
        paths_s=("bn1",),
        paths_t=("conv1",),
    )
    student, collections, teacher = networks()
    mutable = ["batch_stats", "intermediates"]
    variables = {"params": student["student"], **collections}
    capture = {"train": True, "mutable": mutable, "capture_intermediates": True}
    apply_s = functools.partial(STUDENT.apply, **capture)
    apply_t = functools.partial(TEACHER.apply, **(capture | {"train": False}))
    _, inner_s = tiny.jit(apply_s)(variables, IMAGES)
    _, inner_t = tiny.jit(apply_t)(teacher, IMAGES)
    bn1 = inner_s["intermediates"]["bn1"]["__call__"][0]
    conv1 = inner_t["intermediates"]["conv1"]["__call__"][0]
    (_, outputs), gradient = evaluate(objective, differentiate=True)
    expected = losses.attention_transfer(bn1, taps_t["late"]) + losses.attention_transfer(
        taps_s["late"], conv1
    )
    np.testing.assert_allclose(outputs.terms["attention"], expected, rtol=1e-4)
    chex.assert_tree_all_finite(gradient)


def test_teacher_receives_no_gradient_and_is_in_evaluation_mode():
    objective = tiny.objective(
        STUDENT, TEACHER, Distillation(), AttentionTransfer(), GradientTransfer()
    )
    params, collections, teacher = networks()

    def loss(params, teacher):
        weights = {"at": jnp.asarray(10.0), "gradient_at": jnp.asarray(10.0)}
        return objective(params, collections, teacher, IMAGES, LABELS, weights)[0]

    by_student, by_teacher = tiny.jit(jax.grad(loss, argnums=(0, 1)))(params, teacher)
    assert all(jnp.all(leaf == 0) for leaf in jax.tree.leaves(by_teacher))
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(by_student["student"]["conv0"]))
    # In evaluation mode the logits of an image do not depend on the rest of the batch.
    whole, alone = tiny.jit(
        lambda teacher: [
            objective.view_teacher(teacher, IMAGES[:n], LABELS[:n]).logits for n in (4, 1)
        ]
    )(teacher)
    np.testing.assert_allclose(whole[:1], alone, rtol=1e-5, atol=1e-6)


def test_teacher_view_of_several_students_gives_the_same_loss_as_its_variables():
    objective = tiny.objective(STUDENT, TEACHER, Distillation(), AttentionTransfer())
    params, collections, teacher = networks()

    @tiny.jit
    def both(teacher):
        rest = IMAGES, LABELS, {"at": 10.0}
        view = objective.view_teacher(teacher, IMAGES, LABELS)
        return [objective(params, collections, each, *rest)[0] for each in (teacher, view)]

    direct, shared = both(teacher)
    np.testing.assert_allclose(direct, shared, rtol=1e-6)
    assert Objective(STUDENT).view_teacher(None, IMAGES, LABELS) is None


def test_predict_equals_the_module_in_evaluation_mode():
    params, collections, _ = networks()
    variables = {"params": params["student"], **collections}
    found = tiny.jit(lambda v: Objective(STUDENT).predict(v, None, IMAGES))(variables)
    expected = tiny.jit(lambda v: STUDENT.apply(v, IMAGES, train=False))(variables)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_equal_objectives_are_one_static_argument():
    one, same, other = (
        tiny.objective(tiny.TinyNet(), tiny.TinyNet((5, 6)), AttentionTransfer(p=p))
        for p in (1.0, 1.0, 2.0)
    )
    assert one == same and hash(one) == hash(same)
    assert one != other


def test_objective_of_lists_is_hashable_and_equal_to_that_of_tuples():
    points = [list(pair) for pair in tiny.POINTS]
    options = {"paths_s": ["conv0"], "paths_t": ["conv1"], "freeze": ["conv0"]}
    of_lists = Objective(STUDENT, TEACHER, [AttentionTransfer()], points, **options)
    options = {name: tuple(value) for name, value in options.items()}
    of_tuples = Objective(STUDENT, TEACHER, (AttentionTransfer(),), tiny.POINTS, **options)
    assert of_lists == of_tuples and hash(of_lists) == hash(of_tuples)


def test_outputs_are_compared_by_identity():
    # Arrays have no truth value.
    outputs = evaluate(Objective(STUDENT))[1]
    assert outputs == outputs and outputs != jax.tree.map(jnp.copy, outputs)
    assert len({outputs}) == 1
