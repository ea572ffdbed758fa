"""Cross-entropy, distillation and activation transfer: by hand, per example, derivatives, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from at_jax import losses
from at_jax.errors import UserError

LABELS = jnp.array([0, 3, 1, 4])


def activations(shape=(4, 4, 5, 3), seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def logits(seed=0, shape=(4, 5)):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def distil(s, t):
    return losses.distillation(s, t, LABELS[: len(s)], temperature=4.0, alpha=0.9)


def hard(s, t):
    del t
    return losses.cross_entropy(s, LABELS[: len(s)])


PAIRS = {
    "activation_transfer": (losses.activation_transfer, activations(), activations(seed=1)),
    "distillation": (distil, logits(), logits(1)),
    "cross_entropy": (hard, logits(), logits(1)),
}


@pytest.fixture(params=[lambda f: f, jax.jit], ids=["eager", "jit"])
def compiled(request):
    """The public functions are called directly, and inlined in a jitted one."""
    return request.param


def test_cross_entropy_by_hand(compiled):
    # softmax(0, log 3) = (1/4, 3/4): -log(1/4) = log 4, -log(3/4) = log(4/3).
    z = jnp.log(jnp.array([[1.0, 3.0], [1.0, 3.0]]))
    result = compiled(losses.cross_entropy)(z, jnp.array([0, 1]))
    np.testing.assert_allclose(result, np.log([4, 4 / 3]), rtol=1e-6)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        # At T = 2 the student's soft targets are (1/4, 3/4), the teacher's (1/2, 1/2):
        # KL(t || s) = 1/2 log(2) + 1/2 log(2/3) = log(2 / sqrt 3), times T^2 = 4.
        (1.0, 4 * np.log(2 / np.sqrt(3))),
        # At T = 1 the student is softmax(0, log 9) = (1/10, 9/10): cross-entropy log 10.
        (0.0, np.log(10)),
        (0.75, 0.75 * 4 * np.log(2 / np.sqrt(3)) + 0.25 * np.log(10)),
    ],
)
def test_distillation_by_hand(compiled, alpha, expected):
    # Temperature and alpha are arguments of the program, not constants of it.
    distillation = compiled(
        lambda s, t, labels, temperature, alpha: losses.distillation(
            s, t, labels, temperature=temperature, alpha=alpha
        )
    )
    student = jnp.array([[0.0, 2 * np.log(3)]], jnp.float32)
    result = distillation(student, jnp.zeros((1, 2)), jnp.array([0]), 2.0, alpha)
    np.testing.assert_allclose(result, [expected], rtol=1e-5)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("number", [int, np.float64, np.int64, jnp.int32, jnp.float16])
def test_distillation_keeps_the_dtype_of_logits(compiled, number, x64):
    with jax.enable_x64(x64):
        options = {"temperature": number(4), "alpha": number(1)}
        distillation = compiled(lambda s, t: losses.distillation(s, t, LABELS, **options))
        result = distillation(logits(), logits(1))
        assert result.dtype == jnp.float32
        expected = losses.distillation(logits(), logits(1), LABELS, temperature=4.0, alpha=1.0)
        np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "temperature must be a finite number above 0, got 0: Hinton"),
        ({"temperature": np.float32(-1)}, "temperature .* got -1.0"),
        ({"temperature": float("nan")}, "temperature .* got nan"),
        ({"alpha": 1.5}, "alpha must be from 0 to 1, got 1.5: it is the share"),
        ({"alpha": -1}, "alpha .* got -1"),
    ],
)
def test_distillation_of_numbers_out_of_range_raises_user_error(options, message):
    with pytest.raises(UserError, match=f"distillation: {message}"):
        losses.distillation(Z, Z, LABELS, **{"temperature": 4.0, "alpha": 0.5} | options)


def test_activation_transfer_by_hand(compiled):
    # Differences 1, 2, 3, 4 over two positions and two channels: (1 + 4 + 9 + 16) / 4 = 7.5.
    a_s = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 2, 1, 2)
    result = compiled(losses.activation_transfer)(a_s, jnp.zeros_like(a_s))
    np.testing.assert_allclose(result, [7.5], rtol=1e-6)


@pytest.mark.parametrize(("loss", "s", "t"), PAIRS.values(), ids=PAIRS)
def test_losses_of_part_of_a_batch_are_part_of_the_losses(loss, s, t):
    whole = loss(s, t)
    assert whole.shape == (4,)
    np.testing.assert_allclose(loss(s[:2], t[:2]), whole[:2], rtol=1e-6)
    # The gradient of one example's loss is zero for the others.
    gradient = jax.grad(lambda s: loss(s, t)[0])(s)
    assert jnp.all(gradient[1:] == 0) and jnp.any(gradient[0] != 0)


@pytest.mark.parametrize("name", ["activation_transfer", "distillation"])
def test_losses_have_numerical_derivatives_of_order_two(name):
    loss, s, t = PAIRS[name]
    check_grads(lambda s: loss(s, t), (s,), order=2, modes=["rev"], atol=2e-2, rtol=2e-2)


def test_losses_of_equal_networks_are_zero_with_zero_gradient():
    a, z = activations(), logits()

    def total(a_s, z_s):
        soft = losses.distillation(z_s, z, LABELS, temperature=4.0, alpha=1.0)
        return jnp.sum(soft) + jnp.sum(losses.activation_transfer(a_s, a))

    np.testing.assert_allclose(total(a, z), 0, atol=1e-6)
    for gradient in jax.grad(total, argnums=(0, 1))(a, z):
        np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_losses_of_half_precision_are_computed_in_float32(dtype):
    # 300^2 overflows float16; all values here are exact in both types.
    a_s = jnp.array([300, 100, 200, 0], dtype).reshape(1, 2, 2, 1)
    a_t = jnp.array([100, 300, 200, 8], dtype).reshape(1, 2, 2, 1)
    result = losses.activation_transfer(a_s, a_t)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, [(200**2 + 200**2 + 8**2) / 4], rtol=1e-6)
    np.testing.assert_array_equal(losses.activation_transfer(a_s, a_t.astype(jnp.float32)), result)
    z = jnp.array([[200, -200.0]], dtype)
    label = jnp.array([1])
    np.testing.assert_allclose(losses.cross_entropy(z, label), [400])
    soft = losses.distillation(z, -z, label, temperature=1.0, alpha=0.0)
    assert soft.dtype == jnp.float32 and soft == 400


def test_losses_accept_numpy_arrays():
    for loss, s, t in PAIRS.values():
        result = loss(np.asarray(s), np.asarray(t))
        assert isinstance(result, jax.Array)
        np.testing.assert_array_equal(result, loss(s, t))


def test_losses_of_classes_compute_no_nan_under_debug_nans():
    def total(z):
        soft = losses.distillation(z, 2 * z, LABELS, temperature=4.0, alpha=0.9)
        return jnp.sum(losses.cross_entropy(z, LABELS) + soft)

    with jax.debug_nans(True), jax.disable_jit():
        assert jnp.isfinite(total(logits())) and jnp.all(jnp.isfinite(jax.grad(total)(logits())))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_cross_entropy_of_other_labels_is_nan_with_zero_gradient(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        z, labels = jnp.asarray(logits(), dtype), jnp.array([0, -1, 5, 4])
        values = losses.cross_entropy(z, labels)
        assert values.dtype == dtype
        np.testing.assert_array_equal(jnp.isnan(values), [False, True, True, False])
        gradient = jax.grad(lambda z: jnp.sum(losses.cross_entropy(z, labels)))(z)
        np.testing.assert_array_equal(jnp.any(gradient != 0, axis=1), [True, False, False, True])


A, Z = activations(), logits()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: losses.activation_transfer(A, A[..., :2]),
            "shapes must be equal.*1x1 convolution",
        ),
        (lambda: losses.activation_transfer(A[0], A), r"activation_transfer: a_s must have rank 4"),
        (lambda: losses.activation_transfer(A.astype(int), A), "floating point, got int32"),
        (lambda: losses.cross_entropy(Z.astype(int), LABELS), "floating point, got int32"),
        (lambda: losses.cross_entropy(Z, Z[:, 0]), "labels must be integers, got float32"),
        (
            lambda: losses.cross_entropy(Z, LABELS[:, None]),
            "cross_entropy: labels must have rank 1",
        ),
        (
            lambda: losses.cross_entropy(Z, jnp.zeros((4, 3))),
            r"shapes of logits and soft labels must be equal, got \(4, 5\) and \(4, 3\)",
        ),
        (
            lambda: losses.cross_entropy(Z, jnp.zeros((4, 5), int)),
            "soft labels .* must be floating point, got int32: use labels.argmax",
        ),
        (lambda: losses.cross_entropy(Z[0], LABELS), "cross_entropy: logits must have rank 2"),
        (lambda: losses.cross_entropy(Z[:3], LABELS), "must be equal, got 3 and 4: pass one label"),
        (
            lambda: distil(Z, Z[:, :2]),
            "must be equal.*build both networks with the same num_classes",
        ),
        (lambda: distil(Z, Z[0]), r"distillation: logits_t must have rank 2, got shape \(5,\)"),
    ],
)
def test_losses_of_bad_arguments_raise_user_error(call, message):
    with pytest.raises(UserError, match=message):
        call()
