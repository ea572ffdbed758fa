"""Promotion of half precision to float32, and the scale of examples."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from at_jax import losses, maps
from at_jax.errors import UserError
from at_jax.precision import at_least_float32


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_at_least_float32_of_32_bits_or_less_is_float32(dtype):
    x = at_least_float32(jnp.array([1.5, -2.0], dtype))
    assert x.dtype == jnp.float32
    np.testing.assert_array_equal(x, [1.5, -2.0])


def test_at_least_float32_accepts_numpy_arrays():
    assert at_least_float32(np.ones(2, np.float16)).dtype == jnp.float32


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.bool_])
def test_at_least_float32_of_other_types_raises_user_error(dtype):
    with pytest.raises(UserError, match=f"must be floating point, got {jnp.dtype(dtype)}"):
        at_least_float32(jnp.ones(2, dtype))


def test_at_least_float32_keeps_float64():
    # A separate process: x64 is a switch of the whole process.
    code = (
        "import jax.numpy as jnp; from at_jax.precision import at_least_float32 as f; "
        "print(f(jnp.ones(2)).dtype)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"JAX_ENABLE_X64": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "float64", done.stderr


@pytest.mark.parametrize("size", [1.0, 1e3, 1e30])
@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b: jnp.sum(losses.attention_transfer(a, b)),
        lambda a, b: jnp.sum(losses.attention_transfer(a, b, kind="channel", convention="paper")),
        lambda a, b: jnp.sum(maps.normalize(a) * maps.normalize(b)),
    ],
)
def test_hessian_vector_products_at_zero_activations_are_zero(loss, size):
    zeros, others = jnp.zeros((1, 2, 2, 2)), jnp.arange(1.0, 9.0).reshape(1, 2, 2, 2)
    tangent = jnp.full_like(zeros, size)
    gradient = jax.grad(lambda a: loss(a, others))
    _, product = jax.jvp(gradient, (zeros,), (tangent,))
    np.testing.assert_array_equal(product, zeros)
