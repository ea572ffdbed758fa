"""Terms defined outside the library: values, trainable parameters, and inputs of the student's pass."""

import dataclasses
import functools
from typing import ClassVar

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from at_jax import intermediates, losses
from at_jax.errors import UserError
from at_jax.models import layers
from at_jax.objective import Objective
from at_jax.options import at_least, option
from at_jax.terms import AttentionTransfer, Distillation, Term, changes_forward_pass
from at_jax.training import metrics

BATCH = tiny.batch(4)
IMAGES = tiny.prepare(None, BATCH["image"], None)
LABELS = jnp.asarray(BATCH["label"])
TEACHER = tiny.TinyNet((5, 6))


@dataclasses.dataclass(frozen=True)
class LogitNorm(Term):
    name: ClassVar[str] = "logit_norm"
    needs_teacher: ClassVar[bool] = False
    power: float = option(2.0, "Exponent.", at_least(1))

    def values(self, batch, params):
        return jnp.sum(jnp.abs(batch.student.logits) ** self.power, axis=-1)


class Regression(Term):
    """A linear map from the student's last tap to the teacher's logits, trained with the student."""

    name = "regression"

    def module(self, points, taps_s, taps_t):
        return Head(points[-1][0])

    def values(self, batch, params):
        found = self.module(batch.points, {}, {}).apply({"params": params}, batch.student.taps)
        return jnp.sum((found - batch.teacher.logits) ** 2, axis=-1)


class Head(nn.Module):
    point: str

    @nn.compact
    def __call__(self, taps):
        return nn.Dense(tiny.CLASSES)(jnp.mean(taps[self.point], axis=(1, 2)))


class Gated(nn.Module):
    """A student whose first map is multiplied by a gate (B, H, W), if it is passed one."""

    @nn.compact
    def __call__(self, images, *, train=False, gate=None):
        x = nn.relu(layers.conv(3, 3, name="conv")(images))
        x = x if gate is None else x * gate[..., None]
        intermediates.tap(self, "early", x)
        return layers.classifier(jnp.mean(x, axis=(1, 2)), tiny.CLASSES, x.dtype)


class Gate(Term):
    """Multiplies the student's activations by the teacher's attention map."""

    name = "gate"

    def forward_inputs(self, teacher):
        return {"gate": gate_of(teacher.taps)}

    def values(self, batch, params):
        return losses.attention_transfer(batch.student.taps["early"], batch.teacher.taps["early"])


def gate_of(taps):
    return jnp.mean(taps["early"], axis=-1)


@functools.cache
def networks(student):
    objective = tiny.objective(student, TEACHER)
    created = tiny.create(objective)
    return created.params, created.collections, tiny.teacher_variables(objective)


def test_user_term_that_uses_a_teacher_which_it_does_not_need_raises_usererror():
    class Careless(Term):
        name, needs_teacher = "careless", False

        def values(self, batch, params):
            return jnp.mean(batch.student.logits - batch.teacher.logits, axis=-1)

    student = tiny.TinyNet()
    params, collections, _ = networks(student)
    objective = Objective(student, None, (Careless(),))
    with pytest.raises(UserError, match=r"used batch.teacher, .*: remove needs_teacher = False"):
        jax.eval_shape(objective, params, collections, None, IMAGES, LABELS)


def test_user_term_with_values_alone_is_added_with_its_weight():
    student = tiny.TinyNet()
    objective = Objective(student, TEACHER, (Distillation(), LogitNorm(power=3.0)))
    assert objective.weighted_terms == ("logit_norm",)
    loss, outputs = tiny.jit(objective)(*networks(student), IMAGES, LABELS, {"logit_norm": 0.5})
    expected = np.sum(np.abs(outputs.logits) ** 3, axis=-1)
    np.testing.assert_allclose(outputs.terms["logit_norm"], expected, rtol=1e-5)
    soft = np.mean(outputs.terms["distillation"])
    np.testing.assert_allclose(loss, soft + 0.5 * np.mean(expected), rtol=1e-5)
    # Without weights, each term has its default, 1.
    loss, outputs = tiny.jit(objective)(*networks(student), IMAGES, LABELS)
    np.testing.assert_allclose(loss, soft + np.mean(outputs.terms["logit_norm"]), rtol=1e-5)


def test_user_term_with_a_module_trains_its_parameters():
    objective = tiny.objective(tiny.TinyNet(), TEACHER, Regression())
    taps = {"late": jax.ShapeDtypeStruct((1, 3, 3, 4), jnp.float32)}
    modules = objective.modules(taps, taps)
    assert modules == {"regression": Head("late")}
    before = tiny.create(objective, modules=modules, taps=taps)
    assert set(before.params) == {"student", "regression"}
    batches = jax.tree.map(lambda x: np.stack([x] * 5), BATCH)
    run = tiny.jit(tiny.bound(objective, several=True, beta=1.0))
    teacher = tiny.teacher_variables(objective)
    after, measured = run(before, teacher, jax.random.key(0), batches)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), after.params, before.params)
    assert moved["regression"] == {"Dense_0": {"kernel": True, "bias": True}}
    values = measured["loss/regression"][0]
    assert values[-1] < 0.9 * values[0]


@pytest.mark.parametrize("stochastic", [False, True])
def test_user_term_with_forward_inputs_changes_training_and_evaluation(stochastic):
    teacher = Noisy() if stochastic else TEACHER
    objective = Objective(
        Gated(),
        teacher,
        (Gate(), AttentionTransfer()),
        tiny.POINTS[:1],
        stochastic_teacher=stochastic,
    )
    assert changes_forward_pass(objective.terms)
    assert not changes_forward_pass((AttentionTransfer(), LogitNorm()))
    params, collections, _ = networks(Gated())
    variables_t = tiny.teacher_variables(objective)
    variables = {"params": params["student"]}

    @tiny.jit
    def by_hand(variables, variables_t):
        _, taps, _ = intermediates.forward(teacher, variables_t, IMAGES)
        gated = Gated().apply(variables, IMAGES, gate=gate_of(taps))
        return gated, Gated().apply(variables, IMAGES)

    gated, plain = by_hand(variables, variables_t)
    weights = {"gate": 1.0, "at": 1.0}
    keys = jax.random.split(jax.random.key(0), 4)
    _, outputs = tiny.jit(objective)(
        params, collections, variables_t, IMAGES, LABELS, weights, keys
    )
    if not stochastic:  # else the gate in training is random
        np.testing.assert_allclose(outputs.logits, gated, rtol=1e-4, atol=1e-6)
    predict = tiny.jit(objective.predict)
    np.testing.assert_allclose(predict(variables, variables_t, IMAGES), gated, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(predict(variables, None, IMAGES), plain, rtol=1e-4, atol=1e-6)
    assert np.max(np.abs(gated - plain)) > 1e-2


class Mirrored(Term):
    """The student's logits of the mirrored images."""

    name = "mirrored"

    def values(self, batch, params):
        return batch.student_at(jnp.flip(batch.images, axis=2)).logits[:, 0]


def test_user_term_with_forward_inputs_is_given_the_teacher_at_the_images_of_each_pass():
    objective = Objective(Gated(), TEACHER, (Gate(), Mirrored()))
    params, collections, teacher = networks(Gated())
    weights = {"gate": 1.0, "mirrored": 1.0}
    _, outputs = tiny.jit(objective)(params, collections, teacher, IMAGES, LABELS, weights)

    @tiny.jit
    def by_hand(images):
        _, taps, _ = intermediates.forward(TEACHER, teacher, images, train=False)
        return Gated().apply({"params": params["student"]}, images, gate=gate_of(taps))[:, 0]

    expected = by_hand(jnp.flip(IMAGES, axis=2))
    np.testing.assert_allclose(outputs.terms["mirrored"], expected, rtol=1e-4, atol=1e-6)
    assert np.max(np.abs(expected - by_hand(IMAGES))) > 1e-3


class Noisy(nn.Module):
    """A teacher with dropout."""

    @nn.compact
    def __call__(self, images, *, train=False, deterministic=True):
        x = nn.relu(layers.conv(5, 3, name="conv")(images))
        x = nn.Dropout(0.5, deterministic=deterministic)(x)
        intermediates.tap(self, "early", x)
        return layers.classifier(jnp.mean(x, axis=(1, 2)), tiny.CLASSES, x.dtype)


def test_user_term_with_forward_inputs_is_trained_through_its_inputs():
    objective = Objective(Gated(), TEACHER, (Gate(),))
    student = tiny.create(objective)
    run = tiny.jit(tiny.bound(objective))
    after, measured = run(student, tiny.teacher_variables(objective), jax.random.key(0), BATCH)
    means = metrics.means(metrics.total([measured]))
    assert set(means) == {"loss", "loss/cross_entropy", "loss/gate", "error"}
    assert tiny.largest_deviation(after.params, student.params) > 1e-4


class Measured(Term):
    """Half the squared logits; measures what a test names, with a square root that has no slope at 0."""

    name = "measured"
    needs_teacher = False
    measured = "root"

    def values(self, batch, params):
        return jnp.sum(batch.student.logits**2, axis=-1) / 2

    def measures(self, batch, params):
        zeros = 0 * jnp.sum(batch.student.logits, axis=-1)
        return {self.measured: jnp.sqrt(zeros) + self.values(batch, params)}


def test_measures_of_a_user_term_are_metrics_without_influence_on_training():
    student = tiny.TinyNet()
    plain = type("Plain", (Measured,), {"measures": Term.measures})()
    updates = {}
    for term in (Measured(), plain):
        objective = Objective(student, None, (term,))
        start = tiny.create(objective)
        updates[term] = tiny.jit(tiny.bound(objective))(start, None, jax.random.key(0), BATCH)
    (state, measured), (expected, without) = updates[Measured()], updates[plain]
    # The derivative of the square root is infinite: it would be NaN in the update.
    chex.assert_tree_all_finite(state.params)
    chex.assert_trees_all_equal(state.params, expected.params)
    assert set(measured) - set(without) == {"root/measured"}
    chex.assert_trees_all_close(measured["root/measured"], measured["loss/measured"])


@pytest.mark.parametrize(
    ("name", "reduce", "message"),
    [
        ("loss", lambda x: x, r"measured: measures\(\) must not use the name 'loss'"),
        ("beta/x", lambda x: x, r"measured: measures\(\) must not use the name 'beta/x'"),
        ("mean", jnp.mean, r"got \(\): do not take the mean in measures\(\)\['mean'\]"),
    ],
)
def test_measures_with_a_taken_name_or_a_mean_raise_usererror(name, reduce, message):
    def measures(self, batch, params):
        return {name: reduce(batch.student.cross_entropy)}

    student = tiny.TinyNet()
    objective = Objective(student, None, (type("Bad", (Measured,), {"measures": measures})(),))
    params, collections, _ = networks(student)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(objective, params, collections, None, IMAGES, LABELS, {"measured": 1.0})
