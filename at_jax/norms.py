"""Norms of examples, and their derivatives, at any scale.

Examples are multiplied by a power of two before they are squared: squares of float32 numbers below 1e-19
or above 1e19 leave its range, but their norm does not.
"""

import math

import jax
import jax.numpy as jnp

from at_jax.checks import check_array
from at_jax.precision import Array, at_least_float32, power_of_two

__all__ = ["flattened", "l2_norm", "normalize"]


def flattened(x: jax.Array) -> jax.Array:
    """Flatten each example: ``(B, ...)`` to ``(B, N)``, also for B = 0 and for symbolic sizes."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def l2_norm(x: Array) -> jax.Array:
    r"""Euclidean norm of each example, with a zero gradient where the norm is zero.

    ``jnp.linalg.norm`` has a NaN gradient at 0, which is a legal input here: a dead layer, or a student
    that equals its teacher. Examples are scaled by a power of two before they are squared, so tiny and
    huge ones stay in the range of float32.

    Args:
      x: floating point, ``(B, ...)``.

    Returns:
      ``(B,)``.

    Raises:
      UserError: if ``x`` is not floating point, or has no elements.

    >>> import jax.numpy as jnp
    >>> l2_norm(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
    Array([5., 0.], dtype=float32)
    """
    check_array("l2_norm", x=x)
    return _l2_norm(flattened(at_least_float32(x)))


@jax.custom_jvp
def _l2_norm(x):
    """(B, N) -> (B,)."""
    scale, inverse = power_of_two(x, (1,))
    return jnp.sqrt(jnp.sum(jnp.square(x * scale), axis=-1)) * inverse[:, 0]


@_l2_norm.defjvp
def _l2_norm_jvp(primals, tangents):
    # d|x| = x / |x| . dx has no intermediate larger than its factors, whatever the scale of x.
    (x,), (dx,) = primals, tangents
    return _l2_norm(x), jnp.sum(_normalize(x) * dx, axis=-1)


def normalize(q: Array) -> jax.Array:
    r"""Flatten each example and divide it by its l2 norm: :math:`vec(q) / \|vec(q)\|_2`.

    Args:
      q: maps, ``(B, ...)``.

    Returns:
      ``(B, N)``, with rows of norm 1; a zero map gives zeros with zero gradient, never NaN. A NaN
      makes its whole row NaN; an infinity is NaN in its place, and the rest of its row is 0.

    Raises:
      UserError: if ``q`` is not floating point, or has no elements.

    The normalization in equation 2 of arXiv:1612.03928.

    >>> import jax.numpy as jnp
    >>> normalize(jnp.array([[[3.0, 4.0]], [[0.0, 0.0]]]))
    Array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    """
    check_array("normalize", q=q)
    return _normalize(q)


@jax.jit
def _normalize(q):
    q = flattened(at_least_float32(q))  # (B, N)
    # The result does not depend on the scale, so a constant may be divided out first: squares and the
    # derivative of q / |q| then stay in the range of float32.
    q = q * power_of_two(q, (1,))[0]
    squares = jnp.sum(jnp.square(q), axis=-1, keepdims=True)  # 0, or at least 1
    is_zero = squares == 0
    # Double where: the gradient of the branch that is not taken must not contain sqrt at 0 either.
    return jnp.where(is_zero, 0, q / jnp.sqrt(jnp.where(is_zero, 1, squares)))
