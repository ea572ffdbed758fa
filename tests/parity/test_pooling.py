"""Attention transfer with align="pool" against float64 NumPy and against PyTorch's stored results."""

import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import cases

from at_jax import losses, maps
from at_jax.errors import UserError
from benchmarks import reference

SIZES = ("larger_student", "larger_teacher", "overlapping_windows", "uneven_windows")


def pooled(a, height, width):
    """Average pooling in float64, window by window."""
    result = np.empty((a.shape[0], height, width, a.shape[3]))
    for i, j in itertools.product(range(height), range(width)):
        rows = slice(i * a.shape[1] // height, math.ceil((i + 1) * a.shape[1] / height))
        columns = slice(j * a.shape[2] // width, math.ceil((j + 1) * a.shape[2] / width))
        result[:, i, j] = a[:, rows, columns].mean((1, 2))
    return result


def pooled_to_common(a_s, a_t):
    size = [min(pair) for pair in zip(a_s.shape[1:3], a_t.shape[1:3], strict=True)]
    return pooled(a_s, *size), pooled(a_t, *size)


def value_and_gradient(a_s, a_t, **options):
    a_t = jnp.asarray(a_t, jnp.float32)

    def total(a_s):
        value = losses.attention_transfer(a_s, a_t, align="pool", **options)
        return value.sum(), value

    gradient, value = jax.grad(total, has_aux=True)(jnp.asarray(a_s, jnp.float32))
    return value, gradient


@pytest.mark.parametrize("size", SIZES)
def test_pooled_transfer_equals_torch_and_numpy(size):
    with np.load(cases.FOLDER / "pooling.npz") as file:
        stored = {key: file[f"{size}/{key}"] for key in ("student", "teacher", "value", "gradient")}
    a_s, a_t = stored["student"], stored["teacher"]
    in_numpy = reference.attention_transfer(*pooled_to_common(a_s, a_t))
    assert cases.relative(in_numpy, stored["value"]) < 1e-12
    value, gradient = value_and_gradient(a_s, a_t)
    assert cases.relative(value, stored["value"]) < 1e-6
    assert cases.relative(gradient, stored["gradient"]) < 1e-6
    # Another loss than that of resized maps.
    resized = losses.attention_transfer(*(jnp.asarray(a, jnp.float32) for a in (a_s, a_t)))
    assert cases.relative(resized, stored["value"]) > 0.01


@pytest.mark.parametrize(
    ("kind", "p", "convention", "scale"),
    [("sum", 4, "paper", 1.0), ("max", 2, "code", 1.0), ("sum", 2, "code", 1e30)],
)
def test_pooled_transfer_equals_numpy_where_neither_is_square(kind, p, convention, scale):
    # The student is higher, the teacher wider: each is pooled along one axis.
    random = np.random.default_rng(3)
    a_s, a_t = random.normal(size=(2, 9, 4, 3)), random.normal(size=(2, 6, 7, 2))
    options = {"kind": kind, "p": p, "convention": convention}
    value, gradient = value_and_gradient(scale * a_s, a_t, **options)
    expected = reference.attention_transfer(*pooled_to_common(a_s, a_t), **options)
    assert cases.relative(value, expected) < 1e-6
    assert jnp.all(jnp.isfinite(gradient)) and jnp.any(gradient != 0)


def test_pooled_transfer_of_windows_that_nearly_cancel_is_that_of_their_means():
    # The mean of 1, -1, 1 and -1 + 4 k 2^-24 is k 2^-24, exactly. Its 16th power leaves float32, unless
    # the means are scaled again.
    means = np.array([[1.0, 2.0], [3.0, 4.0]])
    a_s = np.tile([[1.0, -1.0], [1.0, -1.0]], (2, 2))
    a_s[1::2, 1::2] += 4 * means * 2.0**-24
    a_t = np.array([[4.0, 1.0], [2.0, 3.0]])
    for kind in ("sum", "max"):
        value, gradient = value_and_gradient(
            a_s[None, :, :, None], a_t[None, :, :, None], kind=kind, p=16
        )
        q_s, q_t = (a**16 / np.linalg.norm(a**16) for a in (means, a_t))
        np.testing.assert_allclose(value, [np.mean((q_s - q_t) ** 2)], rtol=1e-5)
        assert jnp.all(jnp.isfinite(gradient)) and jnp.any(gradient != 0)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_pooled_transfer_of_channels_does_not_depend_on_scale(scale):
    # Channels have no windows: there is no scaling before them.
    random = np.random.default_rng(5)
    a_s, a_t = random.normal(size=(2, 6, 6, 3)), random.normal(size=(2, 4, 4, 3))
    value, gradient = value_and_gradient(scale * a_s, a_t, kind="channel")
    expected, slope = value_and_gradient(a_s, a_t, kind="channel")
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert cases.relative(gradient * scale, slope) < 1e-5


def test_pooled_transfer_of_channels_and_of_equal_sizes_is_that_of_the_default():
    random = np.random.default_rng(4)
    a_s, a_t, small = (
        jnp.asarray(random.normal(size=(2, size, size, 3)), jnp.float32) for size in (6, 6, 4)
    )
    for other, kind in ((a_t, "sum"), (small, "channel")):
        both = [
            losses.attention_transfer(a_s, other, kind=kind, align=align)
            for align in losses.ALIGNMENTS
        ]
        np.testing.assert_array_equal(*both)
    with pytest.raises(UserError, match="align must be one of resize, pool, got 'crop'"):
        losses.attention_transfer(a_s, a_t, align="crop")
    for shape in ((4, 5), (0, 2)):
        message = f"two whole numbers, from 1 to 4 and from 1 to 4, got {re.escape(str(shape))}"
        with pytest.raises(UserError, match=message):
            maps.pool(small, shape)
