"""The losses: per example, invariant, and finite where student and teacher agree."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.test_util import check_grads

from at_jax import losses

CONVENTIONS = ("code", "paper")
EXPONENTS = (1, 1.5, 2, 4)


def activations(shape=(4, 4, 5, 3), seed=0):
    """Signed, and nowhere near 0, where |a|^p is not smooth."""
    a = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(a + np.copysign(0.2, a), jnp.float32)


def logits(seed=0, shape=(4, 5)):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


LABELS = jnp.array([0, 3, 1, 4])


def all_losses():
    """Every loss as a function of the student and the teacher alone, with both."""
    a_s, a_t, z_s, z_t = activations(), activations(seed=1), logits(), logits(1)
    both = {
        f"{kind}-{convention}": (
            lambda s, t, k=kind, c=convention: losses.attention_transfer(s, t, kind=k, convention=c)
        )
        for kind in losses.KINDS
        for convention in CONVENTIONS
    }
    pairs = {name: (loss, a_s, a_t) for name, loss in both.items()}
    pairs["activation"] = (losses.activation_transfer, a_s, a_t)

    def distil(s, t):
        return losses.distillation(s, t, LABELS[: len(s)], temperature=4.0, alpha=0.9)

    pairs["distillation"] = (distil, z_s, z_t)
    pairs["cross_entropy"] = (lambda s, _: losses.cross_entropy(s, LABELS[: len(s)]), z_s, z_t)
    return pairs


@pytest.mark.parametrize(("loss", "s", "t"), all_losses().values(), ids=all_losses())
def test_per_example_and_differentiable(loss, s, t):
    whole = loss(s, t)
    assert whole.shape == (4,)
    np.testing.assert_allclose(loss(s[:2], t[:2]), whole[:2], rtol=1e-6)
    # The gradient of one example's loss does not touch the others.
    gradient = jax.grad(lambda s: loss(s, t)[0])(s)
    assert jnp.all(gradient[1:] == 0) and jnp.any(gradient[0] != 0)


@pytest.mark.parametrize(
    "name", ["sum-code", "sum-paper", "max-code", "channel-code", "activation", "distillation"]
)
def test_derivatives_are_numerical_ones(name):
    loss, s, t = all_losses()[name]
    jitted = jax.jit(lambda s: loss(s, t))
    check_grads(jitted, (s,), order=2, modes=["rev"], atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("kind", losses.KINDS)
def test_attention_forgets_scale_and_channel_order(kind, convention):
    a_s, a_t = activations(), activations(seed=1)
    transfer = jax.jit(
        lambda s, t: losses.attention_transfer(s, t, kind=kind, convention=convention)
    )
    gradient = tiny.jit(jax.grad(lambda s: jnp.sum(transfer(s, a_t))))
    expected = transfer(a_s, a_t)
    for scale in (1e-15, 1e-3, 1e12):
        np.testing.assert_allclose(transfer(a_s * scale, a_t), expected, rtol=1e-4)
        np.testing.assert_allclose(transfer(a_s, a_t * scale), expected, rtol=1e-4)
        # Of degree 0, so the gradient is of degree -1: neither lost nor infinite at the ends.
        np.testing.assert_allclose(gradient(a_s * scale) * scale, gradient(a_s), atol=1e-5)
    order = jnp.array([2, 0, 1])
    together = transfer(a_s[..., order], a_t[..., order])
    np.testing.assert_allclose(together, expected, rtol=1e-4)
    # Spatial attention does not even ask that both sides be shuffled alike, nor as many channels.
    apart = transfer(a_s[..., order], a_t)
    assert np.allclose(apart, expected, rtol=1e-4) == (kind != "channel")
    if kind != "channel":
        wider = jnp.concatenate([a_t, jnp.zeros_like(a_t)], axis=-1)
        np.testing.assert_allclose(transfer(a_s, wider), expected, rtol=1e-5)


@pytest.mark.parametrize("p", EXPONENTS)
def test_zero_maps_and_equal_networks(p):
    cases = [(kind, convention) for kind in losses.KINDS for convention in CONVENTIONS]

    @tiny.jit
    def derivatives(s, t):
        """For every case: value, gradient by both sides, gradient of the gradient's square."""

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
    # Student and teacher are rounded apart in one fused program: 1e-8, not always 0.
    assert max(abs(value) for value, *_ in equal.values()) < 1e-6
    # Everything 0; a dead student; one whose second image alone is dead; a dead teacher.
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
        # |q_t|^2 = 1 over N numbers in the code's mean; the paper's 1/2 an image. Two images.
        expected = 2 / (2 if kind == "channel" else 9) if convention == "code" else 1.0
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_equal_networks_in_the_other_losses():
    a, z = activations(), logits()

    def total(a, z):
        soft = losses.distillation(z, z_t, LABELS, temperature=4.0, alpha=1.0)
        return jnp.sum(soft) + jnp.sum(losses.activation_transfer(a, a_t))

    a_t, z_t = a, z
    first = jax.grad(total, argnums=(0, 1))(a, z)
    np.testing.assert_allclose(total(a, z), 0, atol=1e-6)
    for gradient in first:
        np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("kind", ["sum", "max"])
def test_maps_are_resized_to_the_smaller(kind):
    # The left half of the large map is 1, the right half 0: so is the small one. Bilinear shrinking
    # by 2 blurs the step over one pixel, hence the two inner columns of four: 7/8 and 1/8 of it.
    large = jnp.concatenate([jnp.ones((1, 8, 4, 3)), jnp.zeros((1, 8, 4, 3))], axis=2)
    row = np.array([1, 7 / 8, 1 / 8, 0])
    small = jnp.asarray(np.sqrt(row), jnp.float32)[None, None, :, None] * jnp.ones((1, 4, 1, 2))
    for s, t in ((large, small), (small, large)):
        result = losses.attention_transfer(s, t, kind=kind)
        np.testing.assert_allclose(result, [0], atol=1e-7)
        # Features are not resized: the gradient is there, on the side of its own size.
        assert jax.grad(lambda s, t=t: losses.attention_transfer(s, t)[0])(s).shape == s.shape
    # Student higher, teacher wider: each axis takes the smaller.
    mixed = losses.attention_transfer(jnp.ones((1, 8, 4, 1)), jnp.ones((1, 4, 8, 1)), kind=kind)
    np.testing.assert_allclose(mixed, [0], atol=1e-7)


def test_channel_attention_takes_maps_of_any_size():
    result = losses.attention_transfer(activations(), activations((4, 2, 2, 3)), kind="channel")
    assert result.shape == (4,)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_promoted(dtype):
    # 300^2 overflows float16; all values here are exact in both types.
    a_s = jnp.array([300, 100, 200, 0], dtype).reshape(1, 2, 2, 1)
    a_t = jnp.array([100, 300, 200, 8], dtype).reshape(1, 2, 2, 1)
    calls = [losses.activation_transfer]
    calls += [lambda s, t, k=k: losses.attention_transfer(s, t, kind=k) for k in losses.KINDS]
    for call in calls:
        result = call(a_s, a_t)
        assert result.dtype == jnp.float32
        expected = call(a_s.astype(jnp.float32), a_t.astype(jnp.float32))
        np.testing.assert_allclose(result, expected, rtol=1e-6)
        # A student in half precision, a teacher in float32.
        np.testing.assert_allclose(call(a_s, a_t.astype(jnp.float32)), expected, rtol=1e-6)
    z = jnp.array([[200, -200.0]], dtype)
    label = jnp.array([1])
    np.testing.assert_allclose(losses.cross_entropy(z, label), [400])
    soft = losses.distillation(z, -z, label, temperature=1.0, alpha=0.0)
    assert soft.dtype == jnp.float32 and soft == 400


def test_errors():
    a, z = activations(), logits()
    other = activations((4, 4, 5, 6))
    for call, message in (
        (
            lambda: losses.attention_transfer(a, a, kind="mean"),
            "kind must be one of sum, max, channel",
        ),
        (
            lambda: losses.attention_transfer(a, a, convention="x"),
            "must be one of code, paper, got",
        ),
        (lambda: losses.attention_transfer(a, a, p=0.5), "must be a number >= 1, got 0.5"),
        (lambda: losses.attention_transfer(a, a[:2]), "one batch, got 4 and 2 examples"),
        (lambda: losses.attention_transfer(a.astype(int), a), "floating point, got int32"),
        (lambda: losses.attention_transfer(a, other, kind="channel"), "student 3 and teacher 6"),
        (lambda: losses.activation_transfer(a, other), "adapt the channels with a 1x1 convolution"),
        (lambda: losses.activation_transfer(a.astype(int), a), "floating point, got int32"),
        (lambda: losses.cross_entropy(z.astype(int), LABELS), "floating point, got int32"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match="build both with the same num_classes"):
        losses.distillation(z, z[:, :2], LABELS, temperature=1.0, alpha=0.5)
    with pytest.raises(AssertionError, match=r"has rank 3 .* but expected 4"):
        losses.attention_transfer(a[0], a[0])
