"""Numbers at the ends of float32, NaN and infinity, equal networks, labels and logits out of range."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from at_jax import gradients, intermediates, losses, maps, models
from at_jax.errors import UserError
from at_jax.losses import CONVENTIONS, KINDS

# XLA:CPU's maximum drops NaN in arrays of this size, not in small ones.
LARGE = (8, 32, 32, 16)
NAN, INF = jnp.nan, jnp.inf


@pytest.mark.parametrize("kind", KINDS)
def test_attention_transfer_of_large_arrays_keeps_nan_and_infinity_to_their_example(kind):
    ones = jnp.ones(LARGE)
    transfer = jax.jit(
        lambda s, t: [losses.attention_transfer(s, t, kind=kind, convention=c) for c in CONVENTIONS]
    )
    whole = ones.at[0].set(NAN).at[1].set(INF)
    single = ones.at[0, 5, 6, 7].set(NAN).at[1, 5, 6, 7].set(-INF)
    expected = np.arange(8) < 2
    for bad, (first, second) in itertools.product((whole, single), ((0, 1), (1, 0))):
        pair = (ones, bad)
        for values in transfer(pair[first], pair[second]):
            np.testing.assert_array_equal(np.isnan(values), expected)


def test_normalize_and_l2_norm_of_large_arrays_keep_nan():
    x = jnp.ones((3, 5000)).at[0].set(NAN).at[1].set(INF)
    np.testing.assert_array_equal(np.isnan(jax.jit(maps.normalize)(x)).any(axis=1), [1, 1, 0])
    np.testing.assert_allclose(jax.jit(maps.l2_norm)(x), [NAN, INF, 5000**0.5], rtol=1e-6)


@pytest.mark.parametrize(("kind", "convention"), list(itertools.product(KINDS, CONVENTIONS)))
def test_attention_transfer_of_a_student_equal_to_its_teacher_is_zero_with_zero_gradient(
    kind, convention
):
    # One program, in which XLA computes the two maps differently.
    x = jnp.abs(jax.random.normal(jax.random.key(0), (4, 16, 16, 32)))

    def total(student, teacher):
        scaled = [a * jnp.float32(1.1) + jnp.float32(0.3) for a in (student, teacher)]
        return jnp.sum(losses.attention_transfer(*scaled, kind=kind, convention=convention))

    value, gradient = tiny.jit(jax.value_and_grad(total))(x, x)
    if convention == "paper":
        assert value == 0 and jnp.all(gradient == 0)
    else:  # its gradient shrinks with the difference
        assert value < 1e-13 and jnp.max(jnp.abs(gradient)) < 1e-8


def test_attention_transfer_of_nearly_equal_maps_in_the_paper_convention_is_not_zero():
    # q = (1, 0) and (1, x) / sqrt(1 + x^2): |q_s - q_t| = x for small x, and 8 epsilons are 9.5e-7.
    def transfer(x):
        a_s, a_t = (jnp.array([1.0, b]).reshape(1, 1, 2, 1) for b in (0.0, x))
        return losses.attention_transfer(a_s, a_t, p=1, convention="paper")[0]

    np.testing.assert_allclose(transfer(2e-6), 1e-6, rtol=1e-5)
    assert transfer(5e-7) == 0


@pytest.mark.parametrize("p", [1, 2])
def test_max_map_behind_an_affine_layer_has_a_finite_gradient(p):
    # XLA may compute the layer twice, so that no activation equals the maximum bit for bit.
    x, t = jax.random.normal(jax.random.key(0), (2, 10, 8, 8, 16))

    def total(scale, bias):
        y = jax.nn.relu(x * scale + bias)
        return losses.attention_transfer(y, abs(t), kind="max", p=p).mean() + y.mean()

    arguments = jnp.full((1, 1, 1, 16), 1.1), jnp.full((1, 1, 1, 16), 0.1)
    gradient = tiny.jit(jax.grad(total))(*arguments)
    assert jnp.all(jnp.isfinite(gradient))
    step = 1e-2 * jnp.sign(gradient)
    above, below = (total(arguments[0] + s * step, arguments[1]) for s in (1, -1))
    np.testing.assert_allclose(jnp.sum(gradient * step), (above - below) / 2, rtol=2e-2)


def test_max_map_of_equal_channels_gives_the_gradient_to_the_first():
    a = jnp.array([-3.0, 3.0, 1.0]).reshape(1, 1, 1, 3)
    slope = jax.grad(lambda a: maps.max_map(a, 2).sum())(a)
    np.testing.assert_array_equal(slope.ravel(), [-6, 0, 0])


@pytest.mark.parametrize("name", ["sum_map", "max_map", "channel_map"])
def test_maps_of_exponent_one_have_derivative_zero_at_zero(name):
    a = jnp.array([0.0, 0.0, 2.0, -3.0]).reshape(1, 2, 1, 2)
    slope = jax.grad(lambda a: jnp.sum(getattr(maps, name)(a, 1)))(a).ravel()
    expected = [0, 0, 0, -1] if name == "max_map" else [0, 0, 1, -1]
    np.testing.assert_array_equal(slope, expected)


def test_norms_at_the_end_of_float32():
    x = jnp.array([[3e38, 0.0], [-1e38, 1e38], [1.5e-38, 0.0]])
    np.testing.assert_allclose(maps.l2_norm(x), [3e38, 2**0.5 * 1e38, 1.5e-38], rtol=1e-6)
    half = 0.5**0.5
    expected = [[1, 0], [-half, half], [1, 0]]
    np.testing.assert_allclose(maps.normalize(x), expected, rtol=1e-6)
    # A weight beta of 1000 before the norm: no intermediate may be larger than the result.
    slope = jax.grad(lambda x: 1000 * jnp.sum(maps.l2_norm(x)))(x)
    np.testing.assert_allclose(slope, 1000 * np.array(expected), rtol=1e-6)


@pytest.mark.parametrize("labels", [[-1, 1], [3, 1], [2**31 - 1, 1]])
def test_losses_of_labels_out_of_range_are_nan_for_their_example(labels):
    z = jnp.array([[1.0, 2.0, 0.5], [1.0, 2.0, 0.5]])
    labels = jnp.array(labels, jnp.int32)
    hard = jax.jit(losses.cross_entropy)(z, labels)
    soft = jax.jit(
        lambda z: losses.distillation(z, -z, labels, temperature=4.0, alpha=0.9)
    )(z)  # fmt: skip
    for values in (hard, soft):
        np.testing.assert_array_equal(np.isnan(values), [True, False])
    small = losses.cross_entropy(jnp.zeros((2, 300)), jnp.array([255, 0], jnp.uint8))
    np.testing.assert_allclose(small, np.log(300), rtol=1e-6)


@pytest.mark.parametrize("masks_student", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_of_a_masked_class_is_that_of_the_other_classes(masks_student, temperature):
    s, t = jnp.array([[0.0, 1.0, -2.0]]), jnp.array([[1.0, 0.5, -INF]])
    s = s.at[:, 2].set(-INF) if masks_student else s
    soft = {"temperature": temperature, "alpha": 1.0}

    def transfer(s, t):
        return losses.distillation(s, t, jnp.array([0]), **soft)[0]

    value, slope = jax.jit(jax.value_and_grad(transfer))(s, t)
    assert jnp.all(jnp.isfinite(slope))
    if masks_student:
        other, slope_of_others = jax.value_and_grad(transfer)(s[:, :2], t[:, :2])
        np.testing.assert_allclose(value, other, rtol=1e-6)
        np.testing.assert_allclose(slope, [[*slope_of_others[0], 0]], atol=1e-7)
    else:
        log_s = np.asarray(jax.nn.log_softmax(s / temperature))[0]
        log_t = np.asarray(jax.nn.log_softmax(t[:, :2] / temperature))[0]
        divergence = np.sum(np.exp(log_t) * (log_t - log_s[:2]))
        np.testing.assert_allclose(value, temperature**2 * divergence, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_adapter_of_half_precision_computes_in_float32(dtype):
    adapter = models.Adapter((("a", 5),))
    taps = {"a": jnp.ones((1, 2, 2, 3), dtype)}
    shapes = jax.eval_shape(lambda: adapter.init_with_output(jax.random.key(0), taps)[0])
    assert shapes["a"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("channels", "taps", "message"),
    [
        ((("b", 5),), {"a": (1, 2, 2, 3)}, "no transfer point 'b'; it taps 'a'"),
        ((("a", 5), ("a", 6)), {"a": (1, 2, 2, 3)}, "must be different, .* got 'a' and 'a'"),
        (
            (("e/f", 5), ("e_f", 5)),
            {"e/f": (1, 2, 2, 3), "e_f": (1, 2, 2, 3)},
            "got 'e/f' and 'e_f'",
        ),
        ((("a", 5),), {"a": (2, 5, 3)}, "Adapter: a must have .*rank 4|Adapter: a must"),
    ],
)
def test_adapter_of_wrong_taps_raises(channels, taps, message):
    taps = {name: jnp.ones(shape) for name, shape in taps.items()}
    with pytest.raises(UserError, match=message):
        models.Adapter(channels).init(jax.random.key(0), taps)


def test_adapter_of_float64_computes_in_float64():
    with jax.enable_x64(True):
        taps = {"a": jax.ShapeDtypeStruct((1, 2, 2, 3), jnp.float64)}
        adapter = models.Adapter((("a", 5),))
        init = lambda taps: adapter.init_with_output(jax.random.key(0), taps)[0]  # noqa: E731
        assert jax.eval_shape(init, taps)["a"].dtype == jnp.float64


A, Z = jnp.ones((2, 4, 4, 3)), jnp.ones((2, 3))
Y = jnp.array([0, 1])


def with_aux(x):
    return losses.cross_entropy(x.mean((1, 2)), Y), x


def distil(temperature=1.0, alpha=0.5):
    return losses.distillation(Z, Z, Y, temperature=temperature, alpha=alpha)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: distil(temperature=Z[:, 0]),
            r"distillation: temperature must be a number .*\(2,\)",
        ),
        (lambda: distil(alpha=Z[:, :1]), r"distillation: alpha must be a number .* shape \(2, 1\)"),
        (lambda: distil(alpha="1"), "distillation: alpha must be a number or .* got str"),
        (lambda: losses.attention_transfer(A, A, p=17), "p must be from 1 to 16, got 17"),
        (lambda: losses.attention_transfer(A[:, :0], A), "a_s must have at least one number"),
        (
            lambda: losses.attention_transfer(A.astype(int), A),
            "attention_transfer: a_s must be float",
        ),
        (lambda: losses.cross_entropy(Z[:, :0], Y), "cross_entropy: logits must have at least one"),
        (lambda: maps.normalize(A[:, :0]), "normalize: q must have at least one number"),
        (lambda: maps.normalize([1.0]), r"normalize: q must be an array \(B, ...\), got list"),
        (lambda: maps.l2_norm(jnp.float32(1)), "l2_norm: x must be an array .* got a scalar"),
        (lambda: maps.l2_norm(Y[None]), "l2_norm: x must be floating point, got int32"),
        (lambda: maps.resize(A[..., 0], (0, 4)), "resize: shape must be two whole numbers of at"),
        (lambda: maps.resize(A[..., 0], (4,)), r"resize: shape must be two whole .* got \(4,\)"),
        (lambda: gradients.gradient_penalty(A.astype(int)), "gradient_penalty: j must be floating"),
        (
            lambda: gradients.value_and_input_gradient(with_aux, A),
            "loss must return one array, got tuple: pass has_aux=True",
        ),
        (
            lambda: gradients.value_and_input_gradient(lambda x: x.sum((1, 2, 3)), A, True),
            r"loss must return a pair \(values, aux\) with has_aux=True, got",
        ),
        (
            lambda: gradients.value_and_input_gradient(lambda x: x.reshape(2, -1).argmax(1), A),
            "value_and_input_gradient: the result of loss must be floating point, got int32: integers",
        ),
        (
            lambda: gradients.value_and_input_gradient(lambda x: (jnp.ones(2, bool), x), A, True),
            "the result of loss must be floating point, got bool",
        ),
        (lambda: gradients.value_and_input_gradient(lambda x: 1.0, A), "shape .*got float"),
        (lambda: gradients.value_and_input_gradient(with_aux, [1.0]), "images must be an array"),
        (lambda: intermediates.collect((Z, {})), "collect: mutated must be a dict .* got tuple"),
        (lambda: intermediates.collect(Z), "collect: mutated must be a dict of collections, got"),
    ],
)
def test_bad_arguments_raise_user_error_with_function_and_argument(call, message):
    with pytest.raises(UserError, match=message):
        call()
