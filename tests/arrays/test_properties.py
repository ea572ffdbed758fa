"""Properties of maps, losses and gradient terms, for drawn scales and arrays, against the reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from at_jax import gradients, losses, maps
from benchmarks import reference

SHAPE = (2, 4, 3, 3)
SEEDS = st.integers(0, 2**32 - 1)
PAIRS = SEEDS.map(lambda seed: (seed, seed + 1))
EXPONENTS_OF_TEN = st.floats(-34, 36)
drawn = settings(
    deadline=None, derandomize=True, max_examples=15, database=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip


def array(seed, exponent=0.0, shape=SHAPE):
    """Normal numbers at a scale, a fifth of them zero as after a ReLU."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * (rng.random(shape) > 0.2)
    x.reshape(len(x), -1)[:, 0] = 1  # no example is zero
    return jnp.asarray(x * 10.0**exponent, jnp.float32)


def close(ours, theirs, rounding=0.0):
    ours, theirs = np.asarray(ours, reference.Wide), np.asarray(theirs, reference.Wide)
    # Below the normal numbers of float32, XLA:CPU gives zero.
    allowed = 1e-4 * np.max(np.abs(theirs)) + 2e-38 + rounding
    assert np.max(np.abs(ours - theirs)) <= allowed, (ours, theirs)


@functools.cache
def value_and_gradient(function, **options):
    def total(x, *others):
        values = function(x, *others, **options)
        return jnp.sum(values), values

    return jax.jit(jax.value_and_grad(total, has_aux=True))


@pytest.mark.parametrize(
    ("kind", "p", "convention"),
    [("sum", 2, "code"), ("sum", 1, "paper"), ("max", 4, "code"), ("channel", 1.5, "paper")],
)
@drawn
@given(seeds=PAIRS, scales=st.tuples(EXPONENTS_OF_TEN, EXPONENTS_OF_TEN))
def test_attention_transfer_of_any_scale_is_the_reference(kind, p, convention, seeds, scales):
    options = {"kind": kind, "p": p, "convention": convention}
    a_s, a_t = (array(*each) for each in zip(seeds, scales, strict=True))
    (_, value), gradient = value_and_gradient(losses.attention_transfer, **options)(a_s, a_t)
    wide = np.asarray(a_s, reference.Wide), np.asarray(a_t, reference.Wide)
    close(value, reference.attention_transfer(*wide, **options), rounding=1e-6)
    expected = reference.attention_transfer_gradient(*wide, **options)
    if np.max(np.abs(expected)) < 1e38:
        close(gradient, expected, rounding=1e-6 * p / float(jnp.max(jnp.abs(a_s))))


@drawn
@given(seed=SEEDS, exponent=EXPONENTS_OF_TEN)
def test_normalize_of_any_scale_has_norm_one_and_the_reference_direction(seed, exponent):
    q = jnp.abs(array(seed, exponent))
    result = maps.normalize(q)
    close(result, reference.normalize(np.asarray(q, reference.Wide)))
    np.testing.assert_allclose(jnp.sum(result**2, axis=1), 1, rtol=1e-5)


@drawn
@given(seeds=PAIRS, exponent=EXPONENTS_OF_TEN)
def test_gradient_terms_of_any_scale_are_the_reference(seeds, exponent):
    j, other = (array(seed, exponent) for seed in seeds)
    wide, of_other = np.asarray(j, reference.Wide), np.asarray(other, reference.Wide)
    cases = (
        (gradients.gradient_transfer, (j, other), wide - of_other),
        (gradients.flip_symmetry, (j, other), wide - of_other[:, :, ::-1]),
        (gradients.gradient_penalty, (j,), wide),
    )
    for function, arguments, difference in cases:
        (_, value), gradient = value_and_gradient(function)(*arguments)
        close(value, reference.half_norm(difference))
        if np.all(reference.half_norm(difference) > 1e-37):
            close(gradient, reference.half_norm_gradient(difference))


@drawn
@given(
    seeds=PAIRS,
    scale=st.floats(-3, 3),
    temperature=st.floats(0.01, 100),
    alpha=st.floats(0, 1),
)
def test_distillation_is_the_reference_and_not_negative(seeds, scale, temperature, alpha):
    s, t = (array(seed, scale, (3, 5)) for seed in seeds)
    labels = np.array([0, 4, 2])
    (_, value), gradient = value_and_gradient(_distil)(s, t, labels, temperature, alpha)
    wide = np.asarray(s, reference.Wide), np.asarray(t, reference.Wide), labels
    rounding = 2e-6 * max(temperature**2 * alpha, 1)
    close(value, reference.distillation(*wide, temperature, alpha), rounding)
    assert jnp.all(value >= -rounding)
    close(gradient, reference.distillation_gradient(*wide, temperature, alpha), rounding)


def _distil(s, t, labels, temperature, alpha):
    return losses.distillation(s, t, labels, temperature=temperature, alpha=alpha)


@drawn
@given(seed=SEEDS, power=st.integers(-100, 100), kind=st.sampled_from(losses.KINDS))
def test_attention_transfer_of_a_power_of_two_times_the_student_has_the_same_bits(
    seed, power, kind
):
    a_s, a_t = array(seed), array(seed + 1)
    scaled = losses.attention_transfer(a_s * 2.0**power, a_t, kind=kind)
    np.testing.assert_array_equal(scaled, losses.attention_transfer(a_s, a_t, kind=kind))
