"""Networks with random numbers and with collections of their own, in training and in evaluation."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import own_modules
import pytest
import tiny
from flax import nnx

from at_jax import intermediates, models
from at_jax.errors import UserError
from at_jax.models import layers
from at_jax.objective import Objective
from at_jax.terms import Distillation
from at_jax.training import state, step
from at_jax.training.components import tracing

KEY = jax.random.key(3)


class Dropping(nn.Module):
    """A student with dropout and without batch statistics."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(layers.conv(8, 3, name="conv")(images))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return layers.classifier(jnp.mean(x, axis=(1, 2)), tiny.CLASSES, x.dtype)


class NoisyTeacher(nn.Module):
    """A teacher with dropout that `deterministic` controls, and BatchNorm that `train` controls."""

    @nn.compact
    def __call__(self, images, *, train=False, deterministic=True):
        x = layers.conv(8, 3, name="conv")(images)
        x = layers.batch_norm(x, train=train, dtype=x.dtype, axis_name=None, name="bn")
        intermediates.tap(self, "normalized", x)
        x = nn.Dropout(0.5, deterministic=deterministic)(nn.relu(x))
        return layers.classifier(jnp.mean(x, axis=(1, 2)), tiny.CLASSES, x.dtype)


class Accounting(nn.Module):
    """A student that counts its training steps, keeps a running mean, and sows a loss."""

    @nn.compact
    def __call__(self, images, *, train=False):
        steps = self.variable("counters", "steps", lambda: jnp.zeros((), jnp.int32))
        mean = self.variable("running", "mean", lambda: jnp.zeros(()))
        if train:
            steps.value = steps.value + 1
            mean.value = 0.5 * mean.value + 0.5 * jnp.mean(images)
        x = nn.relu(layers.conv(3, 3, name="conv")(images))
        self.sow("losses", "activity", jnp.mean(x))
        return layers.classifier(jnp.mean(x, axis=(1, 2)), tiny.CLASSES, x.dtype)


class Leaking(nn.Module):
    """Batch normalization that ignores `train`."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.BatchNorm(use_running_average=False, name="bn")(images)
        return layers.classifier(jnp.mean(x, axis=(1, 2)), tiny.CLASSES, x.dtype)


class Block(nn.Module):
    """Batch normalization that follows `train`, or ignores it."""

    follows: bool = True

    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(use_running_average=self.follows and not train)(x)


class Lifted(nn.Module):
    """A block within a transformation of Flax, through which its statistics pass."""

    transform: Callable
    follows: bool = True

    @nn.compact
    def __call__(self, images, *, train=False):
        lifted = self.transform(Block, static_argnums=(2,))(follows=self.follows)
        return nn.Dense(tiny.CLASSES)(jnp.mean(lifted(images, train), axis=(1, 2)))


@pytest.mark.parametrize(
    "module",
    [
        Lifted(nn.remat),
        Lifted(nn.jit),
        models.WideResNet(10, 1, num_classes=tiny.CLASSES, remat=True),
        models.ResNet(18, num_classes=tiny.CLASSES, remat=True),
    ],
)
def test_batch_statistics_that_pass_through_a_transformation_are_accepted(module):
    assert "batch_stats" in tracing.shapes(module, (32, 32, 3), "student").variables


@pytest.mark.parametrize(
    "module",
    [
        Leaking(),
        Lifted(nn.remat, follows=False),
        Lifted(nn.jit, follows=False),
        nnx.bridge.to_linen(own_modules.NnxNormalized, follows=False),
    ],
)
@pytest.mark.parametrize("whose", ["student", "teacher"])
def test_batch_statistics_in_evaluation_are_refused(module, whose):
    message = f"{whose} {type(module).__name__} changes its batch statistics with train=False"
    with pytest.raises(UserError, match=message):
        tracing.shapes(module, (8, 8, 1), whose)


def test_nnx_network_with_dropout_and_batch_normalization_is_accepted():
    module = nnx.bridge.to_linen(own_modules.NnxNormalized, follows=True)
    found = tracing.shapes(module, (8, 8, 1), "student")
    assert found.logits.shape == (1, 10) and "batch_stats" in found.variables


def test_dropout_of_the_student_is_keyed_by_seed_step_and_position():
    objective = Objective(Dropping())
    compiled = tiny.jit(tiny.bound(objective))
    start, batch = tiny.create(objective), tiny.batch()

    def loss(start=start, key=KEY, batch=batch):
        return float(compiled(start, None, key, batch)[1]["loss"][0])

    assert loss() == loss()
    others = (
        loss(key=jax.random.key(4)),
        loss(start.replace(step=jnp.ones((), jnp.int32))),
        loss(batch=dict(batch, position=batch["position"] + 8)),
    )
    assert len({loss(), *others}) == 4


def test_dropout_with_accumulation_differs_between_micro_batches():
    # Two equal micro-batches: with the same random numbers the loss would be that of one of them.
    objective = Objective(Dropping())
    start, batch = tiny.create(objective), tiny.batch(4)
    twice = {name: np.concatenate([array, array]) for name, array in batch.items()}
    twice["position"] = np.arange(8, dtype=np.int32)
    run = functools.partial(tiny.jit(tiny.bound(objective)), start, None, KEY)
    (once, count) = run(batch)[1]["loss"]
    accumulate = tiny.jit(tiny.bound(objective, accumulation=2))
    (total, twice_count) = accumulate(start, None, KEY, twice)[1]["loss"]
    assert abs(total / twice_count - once / count) > 1e-4


def test_dropout_in_evaluation_is_off():
    objective = Objective(Dropping())
    variables = state.variables_of(tiny.create(objective))
    images = tiny.prepare(None, tiny.batch()["image"], None)
    predict = tiny.jit(objective.predict)
    np.testing.assert_array_equal(
        predict(variables, None, images), predict(variables, None, images)
    )
    plain = Dropping().apply(variables, images)
    np.testing.assert_allclose(predict(variables, None, images), plain, rtol=1e-5)


def test_stochastic_teacher_is_random_with_batch_norm_in_evaluation_mode():
    teacher = NoisyTeacher()
    quiet = Objective(tiny.TinyNet(), teacher, (Distillation(),))
    noisy = Objective(tiny.TinyNet(), teacher, (Distillation(),), stochastic_teacher=True)
    variables = tiny.teacher_variables(quiet)
    images = tiny.prepare(None, tiny.batch()["image"], None)
    labels = jnp.zeros(8, jnp.int32)
    keys = jax.random.split(KEY, 8)

    def seen(objective, keys):
        return tiny.jit(
            lambda keys: _outputs(objective.view_teacher(variables, images, labels, keys))
        )(keys)

    logits, taps = seen(quiet, keys)
    plain, mutated = teacher.apply(variables, images, mutable=["intermediates"])
    np.testing.assert_allclose(logits, plain, rtol=1e-4, atol=1e-6)
    random, random_taps = seen(noisy, keys)
    again, _ = seen(noisy, keys)
    other, _ = seen(noisy, jax.random.split(jax.random.key(4), 8))
    np.testing.assert_array_equal(random, again)
    assert np.all(random != other) and np.all(random != logits)
    # What BatchNorm returns is the same: it uses the running statistics.
    expected = intermediates.collect(mutated)["normalized"]
    for found in (taps, random_taps):
        np.testing.assert_allclose(found["normalized"], expected, rtol=1e-4, atol=1e-5)
    # Without keys, as in evaluation, it is deterministic.
    alone = noisy.view_teacher(variables, images, labels)
    np.testing.assert_allclose(alone.logits, plain, rtol=1e-4, atol=1e-6)


def _outputs(view):
    return view.logits, view.taps


def test_stochastic_teacher_in_a_training_step_is_keyed_by_the_step():
    objective = Objective(
        tiny.TinyNet(batch_norm=False), NoisyTeacher(), (Distillation(),), stochastic_teacher=True
    )
    compiled = tiny.jit(tiny.bound(objective))
    start, teacher = tiny.create(objective), tiny.teacher_variables(objective)
    losses = [
        float(
            compiled(start.replace(step=jnp.asarray(n)), teacher, KEY, tiny.batch())[1]["loss"][0]
        )
        for n in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_collections_of_a_module_are_carried_and_sown_values_are_not():
    objective = Objective(Accounting())
    key = jax.random.key(0)
    shapes = jax.eval_shape(
        lambda key: state.create(
            Accounting(), {}, tiny.sgd(), key, (tiny.SIZE, tiny.SIZE, tiny.CHANNELS), {}
        ),
        key,
    )
    assert set(shapes.collections) == {"counters", "running"}
    start = tiny.create(objective)
    assert set(start.collections) == {"counters", "running"}
    batches = tiny.batch(steps=3)
    after, _ = tiny.jit(tiny.bound(objective, several=True))(start, None, KEY, batches)
    assert after.collections["counters"]["steps"] == 3
    images = tiny.prepare(None, batches["image"], None)
    first, second, third = (float(jnp.mean(each)) for each in images)
    expected = first / 8 + second / 4 + third / 2
    np.testing.assert_allclose(after.collections["running"]["mean"], expected, rtol=1e-4)
    # Evaluation leaves them alone, and takes both.
    variables = state.variables_of(after)
    assert set(variables) == {"params", "counters", "running"}
    assert objective.predict(variables, None, images[0]).shape == (8, tiny.CLASSES)


def test_outputs_hold_every_collection_of_the_student():
    created = tiny.create(Objective(Accounting()))
    images = tiny.prepare(None, tiny.batch()["image"], None)
    arguments = created.params, created.collections, None, images, jnp.zeros(8, jnp.int32), {}
    _, outputs = Objective(Accounting())(*arguments)
    assert set(outputs.collections) == {"counters", "running"}
    assert outputs.collections["counters"]["steps"] == 1


def test_constant_collection_is_carried_unchanged():
    student = own_modules.Counting()
    objective = Objective(student)
    start = tiny.create(objective)
    constants = {"scale": jnp.asarray(2.0)}
    start = start.replace(collections=start.collections | {"constants": constants})
    after, _ = tiny.jit(tiny.bound(objective))(start, None, KEY, tiny.batch())
    assert after.collections["constants"] == {"scale": 2.0}
    assert after.collections["counters"]["calls"] == 1


def test_collections_over_a_mapped_axis_are_averaged_if_floating_point():
    objective = Objective(Accounting())
    start = tiny.create(objective)
    batch = tiny.batch(4)
    parts = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), batch)
    update = functools.partial(
        step.train_step,
        objective=objective,
        optimizer=tiny.sgd(),
        weights={},
        prepare=tiny.prepare,
        axis_name="i",
    )
    run = jax.vmap(lambda part: update(start, None, KEY, part), axis_name="i")
    after, _ = tiny.jit(run)(parts)
    means = after.collections["running"]["mean"]
    whole = jnp.mean(tiny.prepare(None, batch["image"], None)) / 2
    np.testing.assert_allclose(means, [whole, whole], rtol=1e-5)
    np.testing.assert_array_equal(after.collections["counters"]["steps"], [1, 1])
