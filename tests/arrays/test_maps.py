"""Attention maps: by hand, invariances, finite derivatives of zero maps, errors."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.test_util import check_grads

from at_jax import maps
from at_jax.errors import UserError

EXPONENTS = (1, 1.5, 2, 4)
MAPS = (maps.sum_map, maps.max_map, maps.channel_map)


def activations(shape=(2, 4, 5, 3), seed=0):
    """Of both signs, and away from 0, where |a|^p is not smooth."""
    a = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(a + np.copysign(0.2, a), jnp.float32)


@pytest.fixture(params=[lambda f: f, jax.jit], ids=["eager", "jit"])
def compiled(request):
    """The public functions are called directly, and inlined in a jitted one."""
    return request.param


@pytest.mark.parametrize(
    ("name", "p", "expected"),
    [
        # One image of 1x2 positions and two channels: [3, -4] on the left, [0, 2] on the right.
        # sum, p = 1: 3 + 4 = 7 | 0 + 2 = 2.    p = 2: 9 + 16 = 25 | 4.   p = 4: 81 + 256 = 337 | 16
        ("sum_map", 1, [[[7.0, 2.0]]]),
        ("sum_map", 2, [[[25.0, 4.0]]]),
        ("sum_map", 4, [[[337.0, 16.0]]]),
        # max, p = 1: max(3, 4) = 4 | 2.   p = 2: 16 | 4.   p = 3: 64 | 8
        ("max_map", 1, [[[4.0, 2.0]]]),
        ("max_map", 2, [[[16.0, 4.0]]]),
        ("max_map", 3, [[[64.0, 8.0]]]),
        # channels, p = 1: 3 + 0 = 3 | 4 + 2 = 6.   p = 2: 9 | 16 + 4 = 20.   p = 3: 27 | 64 + 8 = 72
        ("channel_map", 1, [[3.0, 6.0]]),
        ("channel_map", 2, [[9.0, 20.0]]),
        ("channel_map", 3, [[27.0, 72.0]]),
    ],
)
def test_maps_by_hand(compiled, name, p, expected):
    a = jnp.array([[[[3.0, -4.0], [0.0, 2.0]]]])
    result = compiled(lambda a: getattr(maps, name)(a, p=p))(a)
    np.testing.assert_allclose(result, np.array(expected), rtol=1e-6)
    assert result.dtype == jnp.float32


def test_sum_map_of_fractional_exponent_by_hand(compiled):
    # 4^1.5 = 8 and 9^1.5 = 27: 35.
    a = jnp.array([4.0, -9.0]).reshape(1, 1, 1, 2)
    np.testing.assert_allclose(compiled(lambda a: maps.sum_map(a, p=1.5))(a), [[[35.0]]], rtol=1e-6)


def test_normalize_by_hand(compiled):
    # |(1, 2, 2, 4)| = sqrt(1 + 4 + 4 + 16) = 5; rows in order, so vec() is row by row.
    q = jnp.array([[[1.0, 2.0], [2.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    expected = [[0.2, 0.4, 0.4, 0.8], [0.0, 0.0, 0.0, 0.0]]
    np.testing.assert_allclose(compiled(maps.normalize)(q), expected, rtol=1e-6)


def test_l2_norm_by_hand(compiled):
    # 3^2 + 4^2 = 5^2, also where the squares (1e-60, 1e60) leave float32.
    x = jnp.array([[3.0, 4.0], [3e-30, 4e-30], [3e30, 4e30], [0.0, 0.0]])
    np.testing.assert_allclose(compiled(maps.l2_norm)(x), [5, 5e-30, 5e30, 0], rtol=1e-6)


def test_resize_by_hand(compiled):
    # Shrinking by 2 with antialiasing is a triangle of half-width 2: at the edges of four pixels
    # the weights are 3 : 3 : 1 (over 7), so rows (0, 7, 14, 21) give (0*3 + 7*3 + 14)/7 = 5 and 16.
    q = jnp.array([0.0, 7.0, 14.0, 21.0]).reshape(1, 4, 1)
    resized = compiled(lambda q: maps.resize(q, (2, 1)))(q)
    np.testing.assert_allclose(resized, [[[5.0], [16.0]]], rtol=1e-6)
    np.testing.assert_array_equal(maps.resize(q, [4, 1]), q)


@pytest.mark.parametrize("p", EXPONENTS)
def test_maps_ignore_channel_order_and_sign(p):
    a = activations()
    shuffled = a[..., jnp.array([2, 0, 1])]
    for spatial in (maps.sum_map, maps.max_map):
        np.testing.assert_allclose(spatial(shuffled, p), spatial(a, p), rtol=1e-6)
        np.testing.assert_allclose(spatial(-a, p), spatial(a, p), rtol=1e-6)
        halves = jnp.concatenate([spatial(a[:1], p), spatial(a[1:], p)])
        np.testing.assert_allclose(halves, spatial(a, p), rtol=1e-6)
    np.testing.assert_allclose(maps.channel_map(a[:, ::-1], p), maps.channel_map(a, p), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1.0, 1e12, 1e30])
def test_normalize_does_not_depend_on_scale(scale):
    # q / |q| is of degree 0, so its gradient is of degree -1. 1 / |q|^2 leaves float32 beyond 1e-19.
    q, weights = jnp.abs(activations((2, 9))), activations((2, 9), seed=1)
    gradient = jax.grad(lambda q: jnp.sum(weights * maps.normalize(q)))
    np.testing.assert_allclose(maps.normalize(q * scale), maps.normalize(q), rtol=1e-5)
    np.testing.assert_allclose(gradient(q * scale) * scale, gradient(q), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "p"),
    [*(("sum_map", p) for p in EXPONENTS), ("max_map", 1.5), ("max_map", 4), ("channel_map", 1.5)],
)
def test_maps_have_numerical_derivatives_of_order_two(name, p):
    mapping = getattr(maps, name)
    jitted = jax.jit(lambda a: mapping(a, p))
    check_grads(jitted, (activations(),), order=2, atol=2e-2, rtol=2e-2)


def test_norms_have_numerical_derivatives_of_order_two():
    for norm in (maps.normalize, maps.l2_norm):
        check_grads(jax.jit(norm), (activations((2, 6)),), order=2, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("p", EXPONENTS)
def test_maps_of_zero_activations_have_zero_derivatives(p):
    @tiny.jit
    def derivatives(a):
        """For each kind of map: value, gradient, gradient of the gradient's square."""

        def one(mapping):
            def total(a):
                return jnp.sum(maps.normalize(mapping(a, p))[:, -1])

            second = jax.grad(lambda a: jnp.sum(jax.grad(total)(a) ** 2))(a)
            return total(a), jax.grad(total)(a), second

        return [one(mapping) for mapping in MAPS]

    # ReLU gives exact zeros: one channel, one position, and a whole image of them.
    a = activations().at[..., 0].set(0).at[0, 0, 0].set(0).at[1].set(0)
    for value, first, second in derivatives(a):
        chex.assert_tree_all_finite((value, first, second))
        np.testing.assert_array_equal(first[1], 0)
        np.testing.assert_array_equal(second[1], 0)
        assert jnp.any(first[0] != 0)


@pytest.mark.parametrize("p", EXPONENTS)
def test_sum_map_has_derivative_zero_at_zero(p):
    # As in PyTorch. For p = 1 the derivative of jnp.abs at 0 is 1.
    a = jnp.array([-2.0, 0.0, 3.0]).reshape(1, 1, 3, 1)
    derivative = jax.grad(lambda a: jnp.sum(maps.sum_map(a, p)))(a).ravel()
    np.testing.assert_allclose(derivative, [-p * 2.0 ** (p - 1), 0, p * 3.0 ** (p - 1)], rtol=1e-6)


@pytest.mark.parametrize(("p", "second"), [(1, 0), (1.5, 0), (2, 2), (3, 0)])
@pytest.mark.parametrize("mapping", [maps.sum_map, maps.max_map])
def test_maps_of_one_channel_have_the_same_derivatives_at_zero(compiled, mapping, p, second):
    def of(x):
        return mapping(x.reshape(1, 1, 1, 1), p)[0, 0, 0]

    for zero in (jnp.float32(0.0), jnp.float32(-0.0)):
        assert compiled(jax.grad(of))(zero) == 0
        assert compiled(jax.grad(jax.grad(of)))(zero) == second
        assert compiled(jax.jacfwd(jax.jacrev(of)))(zero) == second


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_maps_of_half_precision_are_float32(dtype):
    # 300^2 = 90,000 is above float16's largest number, 65,504.
    a = jnp.full((1, 1, 1, 2), 300, dtype)
    for mapping in MAPS:
        result = mapping(a)
        assert result.dtype == jnp.float32
        np.testing.assert_allclose(result.ravel()[0], 90_000 * (1 + (mapping is maps.sum_map)))
    assert maps.pool(a, (1, 1)).dtype == jnp.float32
    assert maps.normalize(a[..., 0]).dtype == maps.resize(a[..., 0], (1, 1)).dtype == jnp.float32


def test_maps_of_numpy_arrays_are_jax_arrays():
    a = np.asarray(activations())
    for mapping in MAPS:
        result = mapping(a)
        assert isinstance(result, jax.Array)
        np.testing.assert_array_equal(result, mapping(jnp.asarray(a)))


@pytest.mark.parametrize(
    "p",
    [
        np.int64(2), np.float32(2), np.float64(2), np.int64(3), np.float16(1), np.array(1.5),
        jnp.array(2), jnp.array(3.0), jnp.bfloat16(1.5),
    ],
    ids=repr,
)  # fmt: skip
def test_maps_of_scalar_exponent_are_those_of_the_number(p):
    with jax.enable_x64(True):
        for a in (activations(), activations().astype(jnp.float64)):
            for mapping in MAPS:
                result = mapping(a, p)
                assert result.dtype == a.dtype
                np.testing.assert_array_equal(result, mapping(a, p.item()))


def test_maps_of_numpy_shapes_are_those_of_the_numbers():
    a, shape = activations(), np.array([4, 4]) // 2
    np.testing.assert_array_equal(maps.resize(a[..., 0], shape), maps.resize(a[..., 0], (2, 2)))
    np.testing.assert_array_equal(maps.pool(a, tuple(shape)), maps.pool(a, (2, 2)))


@pytest.mark.parametrize("shape", [2, (2,), (2, 2, 2), (2, 0), (2, True), (2, 1.0), np.ones(2)])
def test_maps_of_bad_shapes_raise_user_error(shape):
    for call in (
        lambda: maps.resize(activations()[..., 0], shape),
        lambda: maps.pool(activations(), shape),
    ):
        with pytest.raises(UserError, match="shape must be two whole numbers"):
            call()


BAD = [0.5, 0, -1, float("inf"), float("nan"), True, "2", np.bool_(True), 10**400, 2j, np.ones(1)]


@pytest.mark.parametrize("p", [*BAD, jnp.array(0.5), jnp.array(True)], ids=repr)
def test_maps_of_bad_exponent_raise_user_error(p):
    for mapping in MAPS:
        message = f"^{mapping.__name__}: the exponent p must be a finite number of at least 1, got"
        with pytest.raises(UserError, match=message):
            mapping(activations(), p)


def test_maps_of_a_traced_exponent_raise_user_error():
    for mapping in MAPS:
        message = "the exponent p must be .*, got a traced array: mark it static"
        with pytest.raises(UserError, match=message):
            jax.jit(mapping)(activations(), 2.0)


def test_maps_of_integers_raise_user_error():
    a = jnp.ones((1, 2, 2, 3), jnp.int32)
    for call in (*MAPS, maps.normalize, lambda a: maps.resize(a[..., 0], (1, 1))):
        with pytest.raises(
            UserError, match=r"floating point, got int32: .*x\.astype\(jnp\.float32"
        ):
            call(a)


def test_maps_of_wrong_rank_raise_user_error():
    for call in MAPS:
        message = rf"{call.__name__}: a must have rank 4, got shape \(2, 2, 3\)"
        with pytest.raises(UserError, match=message):
            call(jnp.ones((2, 2, 3)))
    with pytest.raises(UserError, match=r"resize: q must have rank 3, got shape"):
        maps.resize(activations(), (2, 2))
