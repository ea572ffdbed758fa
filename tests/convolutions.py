"""The closed convolution and that of lax, with the derivatives in which they are compared."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import tiny
from jax import lax

from at_jax.conv import conv_general_dilated

LAYOUT = ("NHWC", "HWIO", "NHWC")


def operands(image=(7, 6), kernel=(3, 3), channels=(2, 3), batch=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, *image, channels[0]))
    w = rng.normal(size=(*kernel, *channels))
    return jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32)


def closed_conv(x, w, strides=(2, 2), padding=((1, 1), (1, 1)), dilation=(1, 1), conv=None):
    conv = conv or conv_general_dilated
    return conv(x, w, strides, padding, rhs_dilation=dilation, dimension_numbers=LAYOUT)


lax_conv = functools.partial(closed_conv, conv=lax.conv_general_dilated)


def assert_close(tree, other, tolerance=1e-5):
    """Compare each leaf, relative to its largest value."""
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        assert np.max(np.abs(a - b), initial=0) <= tolerance * np.max(np.abs(b), initial=0)


def derivatives(conv):
    """(x, w) -> value, tangent, gradients, gradients of functions of the gradients, Hessian products."""

    def loss(x, w):
        return jnp.sum(jnp.sin(conv(x, w)))  # not linear in y, so the second order is not trivial

    gradient = jax.grad(loss, argnums=(0, 1))

    def squares(x, w):
        gx, gw = gradient(x, w)
        return jnp.sum(jnp.sin(gx)) + jnp.sum(jnp.sin(gw))

    def everything(x, w):
        tangents = (jnp.cos(x), jnp.sin(w))
        _, forward_over_reverse = jax.jvp(gradient, (x, w), tangents)
        _, forward = jax.jvp(conv, (x, w), tangents)
        second = jax.grad(squares, argnums=(0, 1))(x, w)
        return conv(x, w), forward, gradient(x, w), second, forward_over_reverse

    return everything


lax_derivatives = tiny.jit(derivatives(lax_conv))
