"""View: one forward pass, and any number of gradients with respect to the images from it."""

import functools
import gc
import weakref

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from at_jax import intermediates, losses, maps
from at_jax.errors import UserError
from at_jax.terms import View
from benchmarks.compiled import flops

BATCH = tiny.batch(4)
IMAGES = tiny.prepare(None, BATCH["image"], None)
LABELS = jnp.asarray(BATCH["label"])
NET = tiny.TinyNet()


@functools.cache
def variables():
    with jax.ensure_compile_time_eval():  # the first call may be in a trace
        return tiny.teacher_variables(tiny.objective(teacher=NET))


def apply(variables, images):
    """Logits and taps of the network in evaluation mode, and what the pass has changed."""
    logits, taps, _ = intermediates.forward(NET, variables, images, train=False)
    return (logits, taps), {"pixels": images.size}


def view(images=IMAGES, of_network=None, **options):
    of_network = of_network or variables()
    return View(functools.partial(apply, of_network), images, LABELS, **options)


def early(logits, taps):
    return jnp.sum(maps.sum_map(taps["early"]), axis=(1, 2))


def late(logits, taps):
    return jnp.sum(maps.sum_map(taps["late"]), axis=(1, 2))


def both(logits, taps):
    return logits[:, 0] * taps["late"][:, 0, 0, 0] + early(logits, taps)


def first_logit(logits):
    return logits[:, 0]


def test_view_holds_logits_taps_and_mutated_collections():
    def run(images):
        seen = view(images)
        return (
            apply(variables(), images),
            ((seen.logits, seen.taps), seen.mutated),
            seen.cross_entropy,
        )

    expected, found, cross_entropy = tiny.jit(run)(IMAGES)
    assert set(found[0][1]) == {"early", "late"}
    chex.assert_trees_all_close(found, expected, rtol=1e-5)
    wanted = losses.cross_entropy(expected[0][0], LABELS)
    np.testing.assert_allclose(cross_entropy, wanted, rtol=1e-5)


@pytest.mark.parametrize("of", [None, first_logit, early, late, both])
def test_gradient_of_a_function_equals_jax_grad(of):
    def total(images):
        (logits, taps), _ = apply(variables(), images)
        if of is None:
            return jnp.sum(losses.cross_entropy(logits, LABELS))
        return jnp.sum(of(logits) if of is first_logit else of(logits, taps))

    expected = tiny.jit(jax.grad(total))(IMAGES)
    found = tiny.jit(lambda images: view(images).gradient(of))(IMAGES)
    assert np.max(np.abs(expected)) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("of", [None, early])
def test_gradient_differentiated_by_the_parameters_equals_grad_of_grad(of):
    def by_hand(variables):
        def total(images):
            (logits, taps), _ = apply(variables, images)
            return jnp.sum(of(logits, taps) if of else losses.cross_entropy(logits, LABELS))

        return jnp.sum(jnp.sin(jax.grad(total)(IMAGES)))

    def by_view(variables):
        return jnp.sum(jnp.sin(view(IMAGES, variables).gradient(of)))

    expected, found = tiny.jit(lambda v: (jax.grad(by_hand)(v), jax.grad(by_view)(v)))(variables())
    assert tiny.largest_deviation(found, expected) < 1e-4


def test_gradient_of_one_function_object_is_computed_once():
    def run(images):
        seen = view(images)
        calls.append(seen.gradient(first_logit) is seen.gradient(first_logit))
        calls.append(seen.gradient() is seen.gradient(None))
        # Another object is another function, even if its code is the same.
        calls.append(seen.gradient(lambda z: z[:, 0]) is not seen.gradient(lambda z: z[:, 0]))
        return seen.gradient()

    calls = []
    jaxpr = jax.make_jaxpr(run)(IMAGES)
    assert calls == [True, True, True]
    assert str(jaxpr).count("at_conv_input_grad[") == 2 * 4  # two layers; None, one, two lambdas


def test_gradient_at_a_temperature_is_that_of_the_tempered_cross_entropy_and_computed_once():
    def run(images):
        seen = view(images)
        j = seen.gradient(temperature=4.0)
        assert j is seen.gradient(temperature=4.0) is not seen.gradient(temperature=2.0)
        assert seen.gradient() is seen.gradient(temperature=1.0)
        return j, seen.gradient(lambda z: 4 * losses.cross_entropy(z / 4, LABELS))

    j, expected = tiny.jit(run)(IMAGES)
    np.testing.assert_allclose(j, expected, rtol=1e-5, atol=1e-8)


def test_eager_views_are_freed_without_the_garbage_collector():
    seen = view(IMAGES)
    seen.gradient(temperature=2.0)
    reference = weakref.ref(seen)
    gc.disable()
    try:
        del seen
        assert reference() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("of", [jnp.sum, lambda logits: logits, lambda z, taps: taps["late"]])
def test_gradient_of_a_function_that_is_not_per_example_raises_usererror(of):
    with pytest.raises(UserError, match=r"must return one number per example, shape \(4,\), got"):
        jax.eval_shape(lambda images: view(images).gradient(of), IMAGES)


@pytest.mark.parametrize("of", [lambda z: z.argmax(1), lambda z, taps: z[:, 0] > 0])
def test_gradient_of_a_function_that_returns_integers_raises_usererror(of):
    message = (
        "^View.gradient: the result must be floating point, got (int32|bool): integers have no"
    )
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda images: view(images).gradient(of), IMAGES)


@pytest.mark.parametrize(
    "temperature",
    [4, np.float32(4), np.int64(4), np.array(4.0), jnp.float32(4), jnp.array(4), jnp.bfloat16(4)],
    ids=repr,
)
def test_gradient_at_a_scalar_temperature_is_that_of_the_number(temperature):
    def run(images):
        seen = view(images)
        return seen.gradient(temperature=temperature) is seen.gradient(temperature=4.0)

    found = []
    jax.eval_shape(lambda images: found.append(run(images)), IMAGES)
    assert found == [True]


@pytest.mark.parametrize(
    "temperature",
    [
        0,
        -1.0,
        float("nan"),
        float("inf"),
        jnp.float32(0),
        "a",
        None,
        True,
        1j,
        10**400,
        jnp.ones(1),
    ],
    ids=repr,
)
def test_gradient_at_a_bad_temperature_raises_usererror(temperature):
    message = "^View.gradient: temperature must be a finite number above 0, got .*: pass one number"
    for of in (None, first_logit):
        with pytest.raises(UserError, match=message):
            view().gradient(of, temperature=temperature)


def test_gradient_at_a_traced_temperature_raises_usererror():
    message = "temperature must be a finite number above 0, got a traced array: mark it static"
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda t: view().gradient(temperature=t), 4.0)


def test_gradient_of_a_function_with_further_defaults_passes_no_taps():
    # The usual way to bind a loop variable.
    def run(images):
        seen = view(images)
        return [seen.gradient(lambda logits, k=k: logits[:, k]) for k in (0, 1)], seen.gradient(
            first_logit
        )

    (first, second), expected = tiny.jit(run)(IMAGES)
    np.testing.assert_allclose(first, expected, rtol=1e-5)
    assert np.any(first != second)


def test_gradient_of_a_function_that_reads_nothing_is_zero():
    def run(images):
        seen = view(images)
        return seen.gradient(lambda logits: jnp.ones(4)), seen.gradient(lambda z, taps: jnp.ones(4))

    for found in tiny.jit(run)(IMAGES):
        np.testing.assert_array_equal(found, jnp.zeros_like(IMAGES))


def test_integers_among_the_taps_have_no_gradient():
    def run(images):
        def forward(images):
            (logits, taps), mutated = apply(variables(), images)
            return (logits, taps | {"argmax": jnp.argmax(logits, axis=-1)}), mutated

        seen, plain = View(forward, images, LABELS), view(images)

        def chosen(logits, taps):
            return jnp.take_along_axis(logits, taps["argmax"][:, None], axis=-1)[:, 0]

        return (
            (seen.gradient(), seen.gradient(chosen)),
            (plain.gradient(), plain.gradient(lambda logits: jnp.max(logits, axis=-1))),
        )

    found, expected = tiny.jit(run)(IMAGES)
    assert tiny.largest_deviation(found, expected) < 1e-5


@pytest.mark.parametrize(
    ("of", "pulled_back"), [(early, 1), (late, 2), (None, 2), (both, 2), (first_logit, 2)]
)
def test_gradient_of_a_tap_does_not_run_later_layers(of, pulled_back):
    jaxpr = str(jax.make_jaxpr(lambda images: view(images).gradient(of))(IMAGES))
    assert jaxpr.count("at_conv_input_grad[") == pulled_back


def test_gradient_of_an_earlier_output_costs_fewer_operations():
    def operations(of):
        run = jax.jit(lambda images: view(images).gradient(of))
        return flops(run.lower(IMAGES).compile(tiny.QUICK))

    def first_of(point):
        return lambda logits, taps: taps[point][:, 0, 0, 0]

    counts = [operations(of) for of in (first_of("early"), first_of("late"), None)]
    assert counts[0] < 0.8 * counts[1] and counts[1] < counts[2]


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_view_passes_no_gradient(frozen):
    def outputs(variables, images):
        seen = view(images, variables, frozen=frozen)
        gradients = seen.gradient(), seen.gradient(early)
        return seen.logits, seen.taps, seen.cross_entropy, gradients

    def sums(variables, images):
        return jnp.stack([jnp.sum(x) for x in jax.tree.leaves(outputs(variables, images))])

    params, statistics = variables()["params"], variables()["batch_stats"]

    @tiny.jit
    def jacobian(params, images):
        of = lambda p, x: sums({"params": p, "batch_stats": statistics}, x)  # noqa: E731
        return jax.jacrev(of, argnums=(0, 1))(params, images)

    by_params, by_images = jacobian(params, IMAGES)
    kernels = by_params["conv0"]["kernel"]
    assert len(kernels) == 6
    for row in range(6):
        assert bool(jnp.any(kernels[row] != 0)) != frozen
        assert not frozen or not jnp.any(by_images[row] != 0)
