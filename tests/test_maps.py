"""Attention maps: by hand, invariant, and with derivatives that are finite where a map is zero."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from absl.testing import parameterized
from jax.test_util import check_grads

from at_jax import maps

EXPONENTS = (1, 1.5, 2, 4)


def activations(shape=(2, 4, 5, 3), seed=0):
    """Signed, and nowhere near 0, where |a|^p is not smooth."""
    a = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(a + np.copysign(0.2, a), jnp.float32)


class MapsByHand(chex.TestCase, parameterized.TestCase):
    """One image of 1x2 positions and two channels: [3, -4] on the left, [0, 2] on the right."""

    a = jnp.array([[[[3.0, -4.0], [0.0, 2.0]]]])

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
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
    )
    def test_maps(self, name, p, expected):
        result = self.variant(lambda a: getattr(maps, name)(a, p=p))(self.a)
        np.testing.assert_allclose(result, np.array(expected), rtol=1e-6)
        self.assertEqual(result.dtype, jnp.float32)

    @chex.variants(with_jit=True, without_jit=True)
    def test_a_fractional_exponent(self):
        # 4^1.5 = 8 and 9^1.5 = 27: 35.
        a = jnp.array([4.0, -9.0]).reshape(1, 1, 1, 2)
        result = self.variant(lambda a: maps.sum_map(a, p=1.5))(a)
        np.testing.assert_allclose(result, [[[35.0]]], rtol=1e-6)

    @chex.variants(with_jit=True, without_jit=True)
    def test_normalize(self):
        # |(1, 2, 2, 4)| = sqrt(1 + 4 + 4 + 16) = 5; rows in order, so vec() is row by row.
        q = jnp.array([[[1.0, 2.0], [2.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
        expected = [[0.2, 0.4, 0.4, 0.8], [0.0, 0.0, 0.0, 0.0]]
        np.testing.assert_allclose(self.variant(maps.normalize)(q), expected, rtol=1e-6)

    @chex.variants(with_jit=True, without_jit=True)
    def test_l2_norm(self):
        # 3^2 + 4^2 = 5^2, also where the squares (1e-60, 1e60) leave float32.
        x = jnp.array([[3.0, 4.0], [3e-30, 4e-30], [3e30, 4e30], [0.0, 0.0]])
        np.testing.assert_allclose(self.variant(maps.l2_norm)(x), [5, 5e-30, 5e30, 0], rtol=1e-6)

    @chex.variants(with_jit=True, without_jit=True)
    def test_resize(self):
        resize = self.variant(lambda q: maps.resize(q, (2, 1)))
        # Shrinking by 2 with antialiasing is a triangle of half-width 2: at the edges of four pixels
        # the weights are 3 : 3 : 1 (over 7), so rows (0, 7, 14, 21) give (0*3 + 7*3 + 14)/7 = 5 and 16.
        q = jnp.array([0.0, 7.0, 14.0, 21.0]).reshape(1, 4, 1)
        np.testing.assert_allclose(resize(q), [[[5.0], [16.0]]], rtol=1e-6)
        self.assertEqual(maps.resize(q, (4, 1)).tolist(), q.tolist())


@pytest.mark.parametrize("p", EXPONENTS)
def test_invariances(p):
    a = activations()
    shuffled = a[..., jnp.array([2, 0, 1])]
    for spatial in (maps.sum_map, maps.max_map):
        np.testing.assert_allclose(spatial(shuffled, p), spatial(a, p), rtol=1e-6)
        np.testing.assert_allclose(spatial(-a, p), spatial(a, p), rtol=1e-6)
        halves = jnp.concatenate([spatial(a[:1], p), spatial(a[1:], p)])
        np.testing.assert_allclose(halves, spatial(a, p), rtol=1e-6)
    np.testing.assert_allclose(maps.channel_map(a[:, ::-1], p), maps.channel_map(a, p), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1.0, 1e12, 1e30])
def test_normalize_forgets_the_scale_in_value_and_gradient(scale):
    # q / |q| is of degree 0, so its gradient is of degree -1. 1 / |q|^2 leaves float32 beyond 1e-19.
    q, weights = jnp.abs(activations((2, 9))), activations((2, 9), seed=1)
    gradient = jax.grad(lambda q: jnp.sum(weights * maps.normalize(q)))
    np.testing.assert_allclose(maps.normalize(q * scale), maps.normalize(q), rtol=1e-5)
    np.testing.assert_allclose(gradient(q * scale) * scale, gradient(q), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "p"),
    [*(("sum_map", p) for p in EXPONENTS), ("max_map", 1.5), ("max_map", 4), ("channel_map", 1.5)],
)
def test_derivatives(name, p):
    mapping = getattr(maps, name)
    check_grads(lambda a: mapping(a, p), (activations(),), order=2, atol=2e-2, rtol=2e-2)


def test_derivatives_of_norms():
    check_grads(maps.normalize, (activations((2, 6)),), order=2, atol=2e-2, rtol=2e-2)
    check_grads(maps.l2_norm, (activations((2, 6)),), order=2, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("p", EXPONENTS)
def test_zero_activations_have_zero_derivatives(p):
    @tiny.jit
    def derivatives(a):
        """For each kind of map: value, gradient, gradient of the gradient's square."""

        def one(mapping):
            total = lambda a: jnp.sum(maps.normalize(mapping(a, p))[:, -1])  # noqa: E731
            second = jax.grad(lambda a: jnp.sum(jax.grad(total)(a) ** 2))(a)
            return total(a), jax.grad(total)(a), second

        return [one(mapping) for mapping in (maps.sum_map, maps.max_map, maps.channel_map)]

    # ReLU leaves exact zeros: one channel, one position, and a whole image of them.
    a = activations().at[..., 0].set(0).at[0, 0, 0].set(0).at[1].set(0)
    for value, first, second in derivatives(a):
        chex.assert_tree_all_finite((value, first, second))
        np.testing.assert_array_equal(first[1], 0)
        np.testing.assert_array_equal(second[1], 0)
        assert jnp.any(first[0] != 0)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_promoted(dtype):
    # 300^2 = 90,000 is above float16's largest number, 65,504.
    a = jnp.full((1, 1, 1, 2), 300, dtype)
    for mapping in (maps.sum_map, maps.max_map, maps.channel_map):
        result = mapping(a)
        assert result.dtype == jnp.float32
        np.testing.assert_allclose(result.ravel()[0], 90_000 * (1 + (mapping is maps.sum_map)))
    assert maps.normalize(a[..., 0]).dtype == maps.resize(a[..., 0], (1, 1)).dtype == jnp.float32


@pytest.mark.parametrize("p", [0.5, 0, -1, float("inf"), float("nan"), True, "2"])
def test_bad_exponent(p):
    for mapping in (maps.sum_map, maps.max_map, maps.channel_map):
        with pytest.raises(
            ValueError, match="exponent p of an attention map must be a number >= 1"
        ):
            mapping(activations(), p)


def test_integers_are_refused():
    a = jnp.ones((1, 2, 2, 3), jnp.int32)
    for call in (maps.sum_map, maps.max_map, maps.channel_map, maps.normalize):
        with pytest.raises(ValueError, match="must be floating point, got int32"):
            call(a)
    with pytest.raises(ValueError, match=r"x\.astype\(jnp\.float32\)"):
        maps.resize(a[..., 0], (1, 1))


def test_ranks_are_checked():
    for call in (maps.sum_map, maps.max_map, maps.channel_map):
        with pytest.raises(AssertionError, match=r"has rank 3 .* but expected 4"):
            call(jnp.ones((2, 2, 3)))
    with pytest.raises(AssertionError, match=r"has rank 4 .* but expected 3"):
        maps.resize(activations(), (2, 2))
