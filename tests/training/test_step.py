"""One update: what it changes and what it leaves alone, however the batch is divided."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tiny

from at_jax.objective import Objective
from at_jax.terms import (
    ActivationTransfer,
    AttentionTransfer,
    Distillation,
)
from at_jax.training import evaluation, metrics, schedules
from at_jax.training.components import optimizers

KEY = jax.random.key(3)


def run(objective, batch, *, several=False, state=None, **options):
    """Compile and run one dispatch on one device."""
    teacher = tiny.teacher_variables(objective) if objective.teacher is not None else None
    compiled = tiny.jit(tiny.bound(objective, several=several, **options))
    return compiled(state or tiny.create(objective), teacher, KEY, batch)


def test_train_step_equals_the_gradient_of_the_objective_and_the_rule_of_sgd():
    objective = tiny.objective(None, None, Distillation(), AttentionTransfer())
    before, batch = tiny.create(objective), tiny.batch()
    teacher = tiny.teacher_variables(objective)
    after, measured = run(objective, batch)
    images = tiny.prepare(None, batch["image"], None)

    @tiny.jit
    def expect(params):
        return jax.value_and_grad(objective, has_aux=True)(
            params, before.collections, teacher, images, batch["label"], {"at": 10.0}
        )

    (loss, outputs), gradient = expect(before.params)
    expected = jax.tree.map(lambda p, g: p - 0.1 * (g + 5e-4 * p), before.params, gradient)
    assert tiny.largest_deviation(after.params, expected) < 1e-5
    assert tiny.largest_deviation(after.collections, outputs.collections) < 1e-5
    assert after.step == 1
    wrong = np.argmax(outputs.logits, axis=-1) != batch["label"]
    hard, attention = outputs.terms["distillation"], outputs.terms["attention"]
    means = metrics.means(metrics.total([measured]))
    np.testing.assert_allclose(means["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(means["loss/distillation"], np.mean(hard), rtol=1e-5)
    np.testing.assert_allclose(means["loss/attention"], np.mean(attention), rtol=1e-5)
    assert means["error"] == np.mean(wrong)
    assert {float(count) for _, count in measured.values()} == {8.0}
    np.testing.assert_allclose(loss, np.mean(hard) + 10 * np.mean(attention), rtol=1e-5)


def test_train_steps_equal_single_steps_and_leave_the_teacher_unchanged():
    # beta decays 30, 20, 10 inside one program; the loss must follow it.
    objective = tiny.objective()
    teacher = tiny.teacher_variables(objective)
    frozen = jax.tree.map(lambda x: np.asarray(x).tobytes(), teacher)
    options = {"weights": {"at": schedules.decay("linear", 30.0, 3)}}
    batches = tiny.batch(steps=3)
    many = tiny.jit(tiny.bound(objective, several=True, **options))
    together, measured = many(tiny.create(objective), teacher, KEY, batches)
    single = tiny.jit(tiny.bound(objective, **options))
    current, parts = tiny.create(objective), []
    for index in range(3):
        one = {name: array[index] for name, array in batches.items()}
        current, part = single(current, teacher, KEY, one)
        parts.append(part)
    assert together.step == current.step == 3
    assert tiny.largest_deviation(together, current) < 1e-4
    for name, (sums, counts) in measured.items():
        assert sums.shape == counts.shape == (3,)
        np.testing.assert_allclose(sums, [part[name][0] for part in parts], rtol=1e-4)
    loss, hard, attention = (
        np.array(measured[name][0]) for name in ("loss", "loss/cross_entropy", "loss/attention")
    )
    np.testing.assert_allclose(loss, hard + np.array([30, 20, 10]) * attention, rtol=1e-5)
    assert frozen == jax.tree.map(lambda x: np.asarray(x).tobytes(), teacher)
    # The schedule continues from the step of the state: beta has reached 0.
    _, later = many(together, teacher, KEY, batches)
    np.testing.assert_allclose(later["loss"][0], later["loss/cross_entropy"][0], rtol=1e-6)


def test_train_step_with_a_teacher_does_not_put_it_into_the_state():
    objective = tiny.objective()
    after, _ = jax.eval_shape(
        tiny.bound(objective),
        tiny.create(objective),
        tiny.teacher_variables(objective),
        KEY,
        tiny.batch(),
    )
    shapes = {leaf.shape for leaf in jax.tree.leaves(after)}
    teacher = tiny.teacher_variables(objective)["params"]["conv1"]["kernel"]
    assert teacher.shape not in shapes
    assert after.params["student"]["conv1"]["kernel"].shape in shapes


def test_accumulation_without_batch_norm_equals_one_batch():
    objective = tiny.objective(tiny.TinyNet(batch_norm=False))
    whole, measured = run(objective, tiny.batch())
    for accumulation in (2, 4):
        parts, summed = run(objective, tiny.batch(), accumulation=accumulation)
        assert tiny.largest_deviation(parts.params, whole.params) < 1e-5
        for name, (total, count) in measured.items():
            np.testing.assert_allclose(summed[name], (total, count), rtol=1e-5)
            assert summed[name][0].shape == ()


def test_accumulation_holds_the_same_memory_for_any_number_of_micro_batches():
    class Wide(nn.Module):
        @nn.compact
        def __call__(self, images, *, train=False):
            x = nn.Dense(1024)(images.reshape(len(images), -1))
            return nn.Dense(tiny.CLASSES)(nn.Dense(1024)(x))

    objective = Objective(Wide())
    state = jax.eval_shape(lambda: tiny.create(objective))
    size = 4 * sum(leaf.size for leaf in jax.tree.leaves(state.params))

    def temporary(accumulation):
        update = jax.jit(tiny.bound(objective, accumulation=accumulation))
        program = update.lower(state, None, KEY, tiny.batch()).compile(tiny.QUICK)
        return program.memory_analysis().temp_size_in_bytes

    assert temporary(8) - temporary(2) < 0.5 * size


def test_accumulation_with_batch_norm_normalizes_each_micro_batch():
    objective = tiny.objective()
    (whole, _), (parts, _) = (run(objective, tiny.batch(), accumulation=n) for n in (1, 2))
    assert tiny.largest_deviation(parts.params, whole.params) > 1e-3
    # Twice 0.9 of the old: var = 0.81 + 0.09 v1 + 0.1 v2, so the share of the initial 1 is smaller.
    assert tiny.largest_deviation(parts.collections, whole.collections) > 1e-2


def test_activation_transfer_trains_its_adapter():
    objective = tiny.objective(None, None, ActivationTransfer())
    taps = {
        "early": jax.ShapeDtypeStruct((1, 6, 6, 3), jnp.float32),
        "late": jax.ShapeDtypeStruct((1, 3, 3, 4), jnp.float32),
    }
    taps_t = {
        "early": jax.ShapeDtypeStruct((1, 6, 6, 5), jnp.float32),
        "late": jax.ShapeDtypeStruct((1, 3, 3, 6), jnp.float32),
    }
    before = tiny.create(objective, modules=objective.modules(taps, taps_t), taps=taps)
    repeated = jax.tree.map(lambda x: np.stack([x] * 5), tiny.batch())
    after, measured = run(objective, repeated, several=True, state=before, beta=0.1)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), after.params, before.params)
    assert moved["f_actt"]["early"] == {"kernel": True, "bias": True}
    assert all(jax.tree.leaves(moved))
    values = measured["loss/activation"][0]
    assert values[-1] < 0.9 * values[0]


def test_augmentation_is_keyed_by_seed_step_and_position():
    # What `prepare` is given becomes the image, so the running mean of the first norm shows it.
    objective = Objective(tiny.TinyNet())

    def noise(key, images, positions):
        keys = jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)
        return jax.vmap(lambda k: jax.random.normal(k, images.shape[1:]))(keys)

    compiled = tiny.jit(tiny.bound(objective, prepare=noise))
    start, batch = tiny.create(objective), tiny.batch()

    def moved(start=start, key=KEY, batch=batch):
        collections = compiled(start, None, key, batch)[0].collections
        return np.asarray(collections["batch_stats"]["bn0"]["mean"])

    np.testing.assert_array_equal(moved(), moved())
    assert np.any(moved() != moved(key=jax.random.key(4)))
    assert np.any(moved() != moved(start.replace(step=jnp.ones((), jnp.int32))))
    # The position of an example matters, not the order in which the device holds them.
    reordered = dict(batch, position=batch["position"][::-1].copy())
    np.testing.assert_allclose(moved(), moved(batch=reordered), rtol=1e-5, atol=1e-7)
    shifted = dict(batch, position=batch["position"] + 8)
    assert np.any(moved() != moved(batch=shifted))


def test_eval_step_with_padding_counts_nothing_even_where_it_is_nan():
    module = tiny.TinyNet()
    variables = tiny.teacher_variables(Objective(module, module))
    batch = tiny.batch(4)
    evaluate = tiny.jit(
        functools.partial(
            evaluation.eval_step,
            objective=Objective(module),
            # Images 2 and 3 turn into NaN.
            prepare=lambda images: (
                images.astype(jnp.float32) / 128
                + jnp.where(jnp.arange(4) > 1, jnp.nan, 0.0)[:, None, None, None]
            ),
        )
    )
    padded = {"image": batch["image"], "label": batch["label"]}
    measured, predictions = evaluate(
        variables, None, padded | {"weight": np.array([1, 1, 0, 0], np.float32)}
    )
    logits = np.asarray(module.apply(variables, batch["image"][:2].astype(np.float32) / 128))
    wrong = np.argmax(logits, axis=-1) != batch["label"][:2]
    assert tuple(map(float, measured["error"])) == (wrong.sum(), 2.0)
    assert measured["cross_entropy"][1] == 2
    entropy = -jax.nn.log_softmax(logits)[np.arange(2), batch["label"][:2]]
    np.testing.assert_allclose(measured["cross_entropy"][0], np.sum(entropy), rtol=1e-5)
    p = np.asarray(jax.nn.softmax(logits))
    np.testing.assert_allclose(predictions["probabilities"], np.sum(p, axis=0), rtol=1e-5)
    np.testing.assert_allclose(predictions["entropy"], -np.sum(p * np.log(p)), rtol=1e-5)
    # With a weight they are wrong, and the cross-entropy is not finite.
    measured, _ = evaluate(variables, None, padded | {"weight": np.ones(4, np.float32)})
    assert float(measured["error"][0]) == wrong.sum() + 2
    assert np.isnan(measured["cross_entropy"][0])


def test_learning_rate_is_that_of_the_step():
    # No weight decay and no momentum: rate 0 from step 1 on leaves the parameters unchanged.
    objective = Objective(tiny.TinyNet())
    optimizer = optimizers.sgd(
        lambda step: jnp.where(step < 1, 0.1, 0.0), momentum=0.0, weight_decay=0.0
    )
    compiled = tiny.jit(tiny.bound(objective, optimizer))
    first, _ = compiled(tiny.create(objective, optimizer), None, KEY, tiny.batch())
    second, _ = compiled(first, None, KEY, tiny.batch())
    chex.assert_trees_all_equal(second.params, first.params)
    assert tiny.largest_deviation(first.params, tiny.create(objective).params) > 1e-3
