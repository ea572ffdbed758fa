"""Attention transfer: by hand, invariances, resizing, zero maps, derivatives, errors."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.test_util import check_grads

from at_jax import losses
from at_jax.errors import UserError
from at_jax.losses import CONVENTIONS, KINDS

EXPONENTS = (1, 1.5, 2, 4)


def activations(shape=(4, 4, 5, 3), seed=0):
    """Of both signs, and away from 0, where |a|^p is not smooth."""
    a = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(a + np.copysign(0.2, a), jnp.float32)


@pytest.fixture(params=[lambda f: f, jax.jit], ids=["eager", "jit"])
def compiled(request):
    return request.param


@pytest.mark.parametrize(
    ("kind", "p", "convention", "expected"),
    [
        # Positions (3, 4), teacher (4, 3), one channel. p = 1: q = (.6, .8) and (.8, .6), difference
        # (-.2, .2). Code: (.04 + .04) / 2 = .04. Paper: sqrt(.08) / 2.
        ("sum", 1, "code", 0.04),
        ("sum", 1, "paper", np.sqrt(0.08) / 2),
        ("max", 1, "code", 0.04),
        # p = 2: maps (9, 16) and (16, 9), norm sqrt(81 + 256) = sqrt(337), difference 7 / sqrt(337)
        # twice. Code: 2 * 49/337 / 2 = 49/337. Paper: sqrt(98/337) / 2.
        ("sum", 2, "code", 49 / 337),
        ("max", 2, "paper", np.sqrt(98 / 337) / 2),
        # One channel: both maps are one number, normalized to 1.
        ("channel", 2, "code", 0.0),
    ],
)
def test_attention_transfer_by_hand(compiled, kind, p, convention, expected):
    a_s = jnp.array([3.0, -4.0]).reshape(1, 1, 2, 1)
    a_t = jnp.array([-4.0, 3.0]).reshape(1, 1, 2, 1)
    options = {"kind": kind, "p": p, "convention": convention}
    transfer = compiled(lambda s, t: losses.attention_transfer(s, t, **options))
    np.testing.assert_allclose(transfer(a_s, a_t), [expected], rtol=1e-5)


def test_attention_transfer_over_channels_by_hand(compiled):
    # Channels (3, 4) and (0, 2), p = 1: q = (.6, .8) and (0, 1): (.36 + .04) / 2 = .2.
    a_s = jnp.array([3.0, -4.0]).reshape(1, 1, 1, 2)
    a_t = jnp.array([0.0, 2.0]).reshape(1, 1, 1, 2)
    transfer = compiled(lambda s, t: losses.attention_transfer(s, t, kind="channel", p=1))
    np.testing.assert_allclose(transfer(a_s, a_t), [0.2], rtol=1e-5)


@pytest.mark.parametrize(("kind", "convention"), list(itertools.product(KINDS, CONVENTIONS)))
def test_attention_transfer_of_part_of_a_batch_is_part_of_the_losses(kind, convention):
    def transfer(s, t):
        return losses.attention_transfer(s, t, kind=kind, convention=convention)

    s, t = activations(), activations(seed=1)
    whole = transfer(s, t)
    assert whole.shape == (4,)
    np.testing.assert_allclose(transfer(s[:2], t[:2]), whole[:2], rtol=1e-6)
    # The gradient of one example's loss is zero for the others.
    gradient = jax.grad(lambda s: transfer(s, t)[0])(s)
    assert jnp.all(gradient[1:] == 0) and jnp.any(gradient[0] != 0)


@pytest.mark.parametrize(
    ("kind", "convention"),
    [("sum", "code"), ("sum", "paper"), ("max", "code"), ("channel", "code")],
)
def test_attention_transfer_has_numerical_derivatives_of_order_two(kind, convention):
    a_t = activations(seed=1)
    transfer = jax.jit(
        lambda s: losses.attention_transfer(s, a_t, kind=kind, convention=convention)
    )
    check_grads(transfer, (activations(),), order=2, modes=["rev"], atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(("kind", "convention"), list(itertools.product(KINDS, CONVENTIONS)))
def test_attention_transfer_does_not_depend_on_scale_and_channel_order(kind, convention):
    a_s, a_t = activations(), activations(seed=1)
    transfer = jax.jit(
        lambda s, t: losses.attention_transfer(s, t, kind=kind, convention=convention)
    )
    gradient = tiny.jit(jax.grad(lambda s: jnp.sum(transfer(s, a_t))))
    expected = transfer(a_s, a_t)
    for scale in (1e-15, 1e-3, 1e12):
        np.testing.assert_allclose(transfer(a_s * scale, a_t), expected, rtol=1e-4)
        np.testing.assert_allclose(transfer(a_s, a_t * scale), expected, rtol=1e-4)
        # Homogeneous of degree 0, so the gradient is of degree -1: neither 0 nor infinite.
        np.testing.assert_allclose(gradient(a_s * scale) * scale, gradient(a_s), atol=1e-5)
    order = jnp.array([2, 0, 1])
    np.testing.assert_allclose(transfer(a_s[..., order], a_t[..., order]), expected, rtol=1e-4)
    # Spatial attention also ignores the order in one network, and the number of channels.
    shuffled = transfer(a_s[..., order], a_t)
    assert np.allclose(shuffled, expected, rtol=1e-4) == (kind != "channel")
    if kind != "channel":
        wider = jnp.concatenate([a_t, jnp.zeros_like(a_t)], axis=-1)
        np.testing.assert_allclose(transfer(a_s, wider), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "p", [pytest.param(p, marks=pytest.mark.slow if p in (1.5, 4) else ()) for p in EXPONENTS]
)
def test_attention_transfer_of_zero_maps_and_equal_networks_has_finite_derivatives(p):
    cases = list(itertools.product(KINDS, CONVENTIONS))

    @tiny.jit
    def derivatives(s, t):
        """For each case: value, gradients of both sides, gradient of the gradient's square."""

        def one(kind, convention):
            def total(s, t):
                options = {"kind": kind, "p": p, "convention": convention}
                return jnp.sum(losses.attention_transfer(s, t, **options))

            second = jax.grad(lambda s: jnp.sum(jax.grad(total)(s, t) ** 2))(s)
            return total(s, t), jax.grad(total, argnums=(0, 1))(s, t), second

        return {case: one(*case) for case in cases}

    a = activations((2, 3, 3, 2))
    zero = jnp.zeros_like(a)
    equal = derivatives(a, a)
    chex.assert_tree_all_finite(equal)
    # One fused program rounds student and teacher differently: 1e-8, not always 0.
    assert max(abs(value) for value, *_ in equal.values()) < 1e-6
    # All zero; a student of zeros; one whose second image is zero; a teacher of zeros.
    for s, t in ((zero, zero), (zero, a), (a.at[1].set(0), a), (a, zero)):
        result = derivatives(s, t)
        chex.assert_tree_all_finite(result)
        for value, first, second in result.values():
            if s is not a:
                np.testing.assert_array_equal(first[0][1], 0)
                np.testing.assert_array_equal(second[1], 0)
            if t is s:
                assert value == 0
    for (kind, convention), (value, *_) in derivatives(zero, a).items():
        # |q_t|^2 = 1 over N numbers in the code's mean; the paper's 1/2 per image. Two images.
        expected = 2 / (2 if kind == "channel" else 9) if convention == "code" else 1.0
        np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["sum", "max"])
def test_attention_transfer_of_different_sizes_resizes_to_the_smaller(kind):
    # The left half of the large map is 1, the right half 0, and so in the small map. Bilinear shrinking
    # by 2 blurs the step over one pixel, hence the two inner columns of four: 7/8 and 1/8 of it.
    large = jnp.concatenate([jnp.ones((1, 8, 4, 3)), jnp.zeros((1, 8, 4, 3))], axis=2)
    row = np.array([1, 7 / 8, 1 / 8, 0])
    small = jnp.asarray(np.sqrt(row), jnp.float32)[None, None, :, None] * jnp.ones((1, 4, 1, 2))
    for s, t in ((large, small), (small, large)):
        result = losses.attention_transfer(s, t, kind=kind)
        np.testing.assert_allclose(result, [0], atol=1e-7)
    # A higher student and a wider teacher: each axis takes the smaller size.
    q_s, q_t = losses.attention_maps(jnp.ones((1, 8, 4, 1)), 2 * jnp.ones((1, 4, 8, 3)), kind)
    np.testing.assert_allclose(q_s, jnp.ones((1, 4, 4)), rtol=1e-6)
    # Not normalized: the sum over three channels of 2^2, or their maximum.
    np.testing.assert_allclose(q_t, jnp.full((1, 4, 4), 12 if kind == "sum" else 4), rtol=1e-6)


def test_attention_maps_over_channels_need_no_equal_sizes():
    q_s, q_t = losses.attention_maps(activations(), activations((4, 2, 2, 3)), kind="channel")
    assert q_s.shape == q_t.shape == (4, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_attention_transfer_of_half_precision_is_computed_in_float32(dtype, kind):
    # 300^2 overflows float16; all values here are exact in both types.
    a_s = jnp.array([300, 100, 200, 0], dtype).reshape(1, 2, 2, 1)
    a_t = jnp.array([100, 300, 200, 8], dtype).reshape(1, 2, 2, 1)
    wide_s, wide_t = (a.astype(jnp.float32) for a in (a_s, a_t))
    result = losses.attention_transfer(a_s, a_t, kind=kind)
    assert result.dtype == jnp.float32
    expected = losses.attention_transfer(wide_s, wide_t, kind=kind)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    mixed = losses.attention_transfer(a_s, wide_t, kind=kind)
    np.testing.assert_allclose(mixed, expected, rtol=1e-6)


A = activations()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "mean"}, "kind must be one of sum, max, channel, got 'mean'"),
        ({"convention": "x"}, "convention must be one of code, paper, got 'x'"),
        (
            {"p": 0.5},
            "attention_transfer: the exponent p must be from 1 to 16, got 0.5: the paper uses",
        ),
        ({"p": 16.1}, "attention_transfer: the exponent p must be from 1 to 16, got 16.1"),
        ({"a_t": A[:2]}, "batch sizes must be equal, got 4 and 2: apply both networks to the same"),
        ({"a_t": A[0]}, r"attention_transfer: a_t must have rank 4, got shape \(4, 5, 3\)"),
        ({"a_s": A.astype(int)}, "must be floating point, got int32"),
        (
            {"a_t": A[..., :2], "kind": "channel"},
            "channels must be equal, got 3 and 2: use kind='sum'",
        ),
    ],
)
def test_attention_transfer_of_bad_arguments_raises_user_error(options, message):
    with pytest.raises(UserError, match=message):
        losses.attention_transfer(**{"a_s": A, "a_t": A} | options)


def test_attention_maps_have_the_bounds_of_the_exponent_of_attention_transfer():
    for p in (0.5, 17, 1000, float("inf"), float("nan")):
        with pytest.raises(
            UserError, match="attention_maps: the exponent p must be from 1 to 16, got"
        ):
            losses.attention_maps(A, A, p=p)
    one, other = (losses.attention_maps(A, A, p=p)[0] for p in (16.0, jnp.array(16.0)))
    np.testing.assert_array_equal(one, other)


def test_attention_transfer_of_a_scalar_array_as_exponent_is_that_of_the_number():
    b = activations(seed=1)
    found = losses.attention_transfer(A, b, p=jnp.array(4.0))
    np.testing.assert_array_equal(found, losses.attention_transfer(A, b, p=4.0))
