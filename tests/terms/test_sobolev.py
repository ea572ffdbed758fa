"""The random direction of Sobolev training."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from at_jax.errors import UserError
from at_jax.objective import Objective
from at_jax.terms import SobolevTraining


class Linear(nn.Module):
    """Logits W x of an image of as many numbers as there are classes."""

    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(4, use_bias=False)(images.reshape(len(images), -1))


@functools.cache
def project():
    """Sobolev term of W x against 0: |W^T v|^2 for each key."""
    linear = Objective(Linear(), Linear(), (SobolevTraining(),))

    def run(kernel_s, kernel_t, images, labels, keys):
        params, teacher = ({"Dense_0": {"kernel": k}} for k in (kernel_s, kernel_t))
        arguments = {"student": params}, {}, {"params": teacher}, images, labels
        return linear(*arguments, {"sobolev": 1.0}, keys)[1].terms["sobolev"]

    return tiny.jit(run)


def test_sobolev_direction_has_norm_one_and_depends_on_the_key_alone():
    images, labels = jnp.ones((3, 2, 2, 1)), jnp.zeros(3, jnp.int32)
    keys = jax.random.split(jax.random.key(1), 3)
    identity, zero = jnp.eye(4), jnp.zeros((4, 4))
    # |W^T v| = |v| where W is the identity.
    np.testing.assert_allclose(project()(identity, zero, images, labels, keys), 1, rtol=1e-5)
    # With one row of the identity, the term is the square of one entry of v.
    first = jnp.zeros((4, 4)).at[0, 0].set(1)
    entries = project()(first, zero, images, labels, keys)
    np.testing.assert_array_equal(entries, project()(first, zero, 2 * images, labels + 1, keys))
    np.testing.assert_array_equal(entries[::-1], project()(first, zero, images, labels, keys[::-1]))
    assert len(set(map(float, entries))) == 3
    # Both networks are projected on the same v: their order does not matter.
    swapped = project()(zero, first, images, labels, keys)
    np.testing.assert_array_equal(entries, swapped)
    np.testing.assert_array_equal(project()(first, first, images, labels, keys), np.zeros(3))


def test_sobolev_without_keys_raises_usererror():
    with pytest.raises(
        UserError, match="sobolev draws random directions, got keys=None: pass keys="
    ):
        project()(jnp.eye(4), jnp.eye(4), jnp.ones((3, 2, 2, 1)), jnp.zeros(3, jnp.int32), None)
