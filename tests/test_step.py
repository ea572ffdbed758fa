"""One update: what it changes, what it leaves alone, and that nothing depends on how it is cut up."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import tiny

from at_jax import metrics, schedules, state, step
from at_jax.models import Adapter
from at_jax.objective import Objective
from at_jax.terms import Attention, Distillation

KEY = jax.random.key(3)


def run(terms, batch, *, several=False, state=None, **options):
    """Compile and run one dispatch on one device."""
    teacher = tiny.teacher_variables(terms) if terms.teacher is not None else None
    compiled = tiny.jit(tiny.bound(terms, several=several, **options))
    return compiled(state or tiny.create(terms), teacher, KEY, batch)


def test_an_update_by_hand():
    # The gradient of the objective, the rule applied to it, and the metrics of the same forward pass.
    terms = tiny.objective(distillation=Distillation(), attention=Attention())
    before, batch, teacher = tiny.create(terms), tiny.batch(), tiny.teacher_variables(terms)
    after, measured = run(terms, batch)
    images = tiny.prepare(None, batch["image"], None)

    @tiny.jit
    def expect(params):
        return jax.value_and_grad(terms, has_aux=True)(
            params, before.batch_stats, teacher, images, batch["label"], {"attention": 10.0}
        )

    (loss, outputs), gradient = expect(before.params)
    expected = jax.tree.map(lambda p, g: p - 0.1 * (g + 5e-4 * p), before.params, gradient)
    assert tiny.largest_deviation(after.params, expected) < 1e-5
    assert tiny.largest_deviation(after.batch_stats, outputs.batch_stats) < 1e-5
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


def test_several_steps_at_once_equal_one_by_one_and_the_teacher_stays():
    # beta decays 30, 20, 10 inside one program; the loss must follow it.
    terms = tiny.objective()
    teacher = tiny.teacher_variables(terms)
    frozen = jax.tree.map(lambda x: np.asarray(x).tobytes(), teacher)
    options = {"weights": {"attention": schedules.decay("linear", 30.0, 3)}}
    batches = tiny.batch(steps=3)
    many = tiny.jit(tiny.bound(terms, several=True, **options))
    together, measured = many(tiny.create(terms), teacher, KEY, batches)
    single = tiny.jit(tiny.bound(terms, **options))
    current, parts = tiny.create(terms), []
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
    # Several dispatches of several steps: the schedule goes on where the state is.
    _, later = many(together, teacher, KEY, batches)
    np.testing.assert_allclose(later["loss"][0], later["loss/cross_entropy"][0], rtol=1e-6)


def test_the_teacher_is_no_part_of_the_state():
    terms = tiny.objective()
    after, _ = run(terms, tiny.batch())
    shapes = {leaf.shape for leaf in jax.tree.leaves(after)}
    teacher = tiny.teacher_variables(terms)["params"]["conv1"]["kernel"]
    assert teacher.shape not in shapes
    assert after.params["student"]["conv1"]["kernel"].shape in shapes


def test_accumulation_equals_one_batch_without_batch_normalisation():
    terms = tiny.objective(tiny.TinyNet(batch_norm=False), attention=Attention())
    whole, measured = run(terms, tiny.batch())
    for accumulation in (2, 4):
        parts, summed = run(terms, tiny.batch(), accumulation=accumulation)
        assert tiny.largest_deviation(parts.params, whole.params) < 1e-5
        for name, (total, count) in measured.items():
            np.testing.assert_allclose(summed[name], (total, count), rtol=1e-5)
            assert summed[name][0].shape == ()
    # With it, statistics are of each micro-batch, moved one after the other; the test can fail.
    terms = dataclasses.replace(terms, student=tiny.TinyNet())
    (whole, _), (parts, _) = run(terms, tiny.batch()), run(terms, tiny.batch(), accumulation=2)
    assert tiny.largest_deviation(parts.params, whole.params) > 1e-3
    # Twice 0.9 of the old: var = 0.81 + 0.09 v1 + 0.1 v2, so the share of the initial 1 fell.
    assert tiny.largest_deviation(parts.batch_stats, whole.batch_stats) > 1e-2


def test_full_activation_transfer_trains_its_adapter():
    adapter = Adapter((("early", 5), ("late", 6)))
    terms = Objective(
        tiny.TinyNet(), tiny.TinyNet((5, 6)), tiny.POINTS, activation=True, adapter=adapter
    )
    taps = {
        "early": jax.ShapeDtypeStruct((1, 6, 6, 3), jnp.float32),
        "late": jax.ShapeDtypeStruct((1, 3, 3, 4), jnp.float32),
    }
    before = tiny.create(terms, taps=taps)
    repeated = jax.tree.map(lambda x: np.stack([x] * 5), tiny.batch())
    after, measured = run(terms, repeated, several=True, state=before, beta=0.1)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), after.params, before.params)
    assert moved["adapter"]["early"] == {"kernel": True, "bias": True}
    assert all(jax.tree.leaves(moved))
    values = measured["loss/activation"][0]
    assert values[-1] < 0.9 * values[0]


def test_augmentation_is_keyed_by_seed_step_and_position():
    # What `prepare` is given becomes the image, so the running mean of the first norm shows it.
    terms = Objective(tiny.TinyNet())

    def noise(key, images, positions):
        keys = jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)
        return jax.vmap(lambda k: jax.random.normal(k, images.shape[1:]))(keys)

    compiled = tiny.jit(tiny.bound(terms, prepare=noise))
    start, batch = tiny.create(terms), tiny.batch()

    def moved(start=start, key=KEY, batch=batch):
        return np.asarray(compiled(start, None, key, batch)[0].batch_stats["bn0"]["mean"])

    np.testing.assert_array_equal(moved(), moved())
    assert np.any(moved() != moved(key=jax.random.key(4)))
    assert np.any(moved() != moved(start.replace(step=jnp.ones((), jnp.int32))))
    # Which example stands where matters, not the order in which the device holds them.
    reordered = dict(batch, position=batch["position"][::-1].copy())
    np.testing.assert_allclose(moved(), moved(batch=reordered), rtol=1e-5, atol=1e-7)
    shifted = dict(batch, position=batch["position"] + 8)
    assert np.any(moved() != moved(batch=shifted))


def test_padded_examples_count_nothing_even_when_they_are_nan():
    module = tiny.TinyNet()
    variables = tiny.teacher_variables(Objective(module, module))
    batch = tiny.batch(4)
    evaluate = tiny.jit(
        functools.partial(
            step.eval_step,
            module=module,
            # Images 2 and 3 turn into NaN.
            prepare=lambda images: (
                images.astype(jnp.float32) / 128
                + jnp.where(jnp.arange(4) > 1, jnp.nan, 0.0)[:, None, None, None]
            ),
        )
    )
    padded = {"image": batch["image"], "label": batch["label"]}
    measured = evaluate(variables, padded | {"weight": np.array([1, 1, 0, 0], np.float32)})
    logits = np.asarray(module.apply(variables, batch["image"][:2].astype(np.float32) / 128))
    wrong = np.argmax(logits, axis=-1) != batch["label"][:2]
    assert tuple(map(float, measured["error"])) == (wrong.sum(), 2.0)
    assert measured["cross_entropy"][1] == 2
    entropy = -jax.nn.log_softmax(logits)[np.arange(2), batch["label"][:2]]
    np.testing.assert_allclose(measured["cross_entropy"][0], np.sum(entropy), rtol=1e-5)
    # Were they no padding, they would be wrong, and the loss would show them.
    measured = evaluate(variables, padded | {"weight": np.ones(4, np.float32)})
    assert float(measured["error"][0]) == wrong.sum() + 2
    assert np.isnan(measured["cross_entropy"][0])


def test_the_rate_is_that_of_the_step():
    # Nothing but weight decay's and the rate's own step: rate 0 from step 1 on leaves all as it is.
    terms = Objective(tiny.TinyNet())
    optimizer = state.sgd(
        lambda step: jnp.where(step < 1, 0.1, 0.0), momentum=0.0, weight_decay=0.0
    )
    compiled = tiny.jit(tiny.bound(terms, optimizer))
    first, _ = compiled(tiny.create(terms, optimizer), None, KEY, tiny.batch())
    second, _ = compiled(first, None, KEY, tiny.batch())
    chex.assert_trees_all_equal(second.params, first.params)
    assert tiny.largest_deviation(first.params, tiny.create(terms).params) > 1e-3
