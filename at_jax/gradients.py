r"""Input gradients, and the terms built on them.

The gradient of the loss by the image, :math:`J = \partial L / \partial x`, says where the network is
sensitive. Training on a function of J differentiates a gradient: ``jax.grad`` nested inside the loss,
outside of it the one that trains. Section 3.2 of Zagoruyko & Komodakis, arXiv:1612.03928.

As in :mod:`at_jax.losses` every term is per example and is what its weight beta multiplies.
"""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from at_jax import maps
from at_jax.precision import at_least_float32


def value_and_input_gradient(
    loss: Callable[[jax.Array], Any], images: chex.Array, has_aux: bool = False
) -> tuple[Any, jax.Array]:
    r"""Evaluate a per-example loss and its gradient by the images, in one forward and one backward pass.

    What is differentiated is the *sum* over examples, so that row b of the result is the gradient of
    example b's own loss, whatever the batch size and the number of devices; of the mean it would shrink
    as 1/B. (Batch statistics couple examples: then row b is the gradient of the whole batch's loss.)

    Args:
      loss: images ``(B, H, W, C)`` to per-example losses ``(B,)``, or to ``((B,), aux)``.
      images: normalised, floating point, ``(B, H, W, C)``.
      has_aux: whether ``loss`` returns something beside: logits, taps, new statistics.

    Returns:
      What ``loss`` returned, and J, ``(B, H, W, C)``, in units of loss per normalised pixel.

    Raises:
      ValueError: if the images are not floating point or ``loss`` does not return ``(B,)``.

    >>> import jax.numpy as jnp
    >>> images = jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1)
    >>> values, j = value_and_input_gradient(lambda x: jnp.sum(x**2, axis=(1, 2, 3)), images)
    >>> values, j.ravel()
    (Array([1., 9.], dtype=float32), Array([2., 6.], dtype=float32))
    """
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"input gradients need floating-point images, got {images.dtype}: normalise them first, "
            "at_jax.data.normalize(images, mean, std)"
        )

    def summed(x):
        result = loss(x)
        values = result[0] if has_aux else result
        if jnp.shape(values) != x.shape[:1]:
            raise ValueError(
                f"the loss must give one number an example, shape {x.shape[:1]}, got "
                f"{jnp.shape(values)}: leave the mean to the caller"
            )
        return jnp.sum(values), result

    (_, result), gradient = jax.value_and_grad(summed, has_aux=True)(images)
    return result, gradient


def _half_norm(x: jax.Array, squared: bool) -> jax.Array:
    """(B, ...) -> (B,): half the l2 norm of each example, or half its square."""
    if not isinstance(squared, bool):
        raise ValueError(
            f"squared must be True (half the square of the norm) or False (half the norm), got {squared!r}"
        )
    if squared:
        return jnp.sum(jnp.square(x), axis=tuple(range(1, x.ndim))) / 2
    return maps.l2_norm(x) / 2


@functools.partial(jax.jit, static_argnames="squared")
def gradient_transfer(j_s: chex.Array, j_t: chex.Array, *, squared: bool = False) -> jax.Array:
    r"""Gradient-based attention transfer: :math:`\frac12 \|J_S - J_T\|_2`.

    Args:
      j_s: input gradients of the student, ``(B, H, W, C)``.
      j_t: of the teacher, at the same images.
      squared: half the square of the norm instead.

    Returns:
      ``(B,)``; where the gradients agree, 0 with zero gradient.

    Raises:
      ValueError: if the shapes differ, the gradients are not floating point, or ``squared`` is no bool.

    Section 3.2 of arXiv:1612.03928.

    >>> import jax.numpy as jnp
    >>> j = jnp.array([3.0, 4.0]).reshape(1, 1, 2, 1)
    >>> gradient_transfer(j, jnp.zeros_like(j)), gradient_transfer(j, -j, squared=True)
    (Array([2.5], dtype=float32), Array([50.], dtype=float32))
    """
    _check_gradients(j_s, j_t, "student and teacher")
    return _half_norm(at_least_float32(j_s) - at_least_float32(j_t), squared)


@functools.partial(jax.jit, static_argnames="squared")
def flip_symmetry(j: chex.Array, j_flipped: chex.Array, *, squared: bool = False) -> jax.Array:
    r"""Symmetry under horizontal flips: :math:`\frac12 \|J(x) - flip(J(flip(x)))\|_2`.

    Needs no teacher: a network should be as sensitive to a pixel as to its mirror image.

    Args:
      j: input gradients at the images, ``(B, H, W, C)``.
      j_flipped: input gradients at the mirrored images, not yet mirrored back.
      squared: half the square of the norm instead.

    Returns:
      ``(B,)``.

    Raises:
      ValueError: if the shapes differ, the gradients are not floating point, or ``squared`` is no bool.

    Section 3.2 of arXiv:1612.03928.

    >>> import jax.numpy as jnp
    >>> j = jnp.array([3.0, 4.0]).reshape(1, 1, 2, 1)
    >>> flip_symmetry(j, j[:, :, ::-1])
    Array([0.], dtype=float32)
    """
    _check_gradients(j, j_flipped, "an image and its mirror image")
    return _half_norm(at_least_float32(j) - jnp.flip(at_least_float32(j_flipped), axis=2), squared)


@functools.partial(jax.jit, static_argnames="squared")
def gradient_penalty(j: chex.Array, *, squared: bool = False) -> jax.Array:
    r"""Double backpropagation, min-l2: :math:`\frac12 \|J\|_2`.

    Args:
      j: input gradients, ``(B, H, W, C)``.
      squared: half the square of the norm instead, as Drucker and LeCun have it.

    Returns:
      ``(B,)``.

    Raises:
      ValueError: if the gradients are not floating point, or ``squared`` is no bool.

    Drucker & LeCun, "Improving generalization performance using double backpropagation", 1992.

    >>> import jax.numpy as jnp
    >>> gradient_penalty(jnp.array([3.0, 4.0]).reshape(1, 1, 2, 1))
    Array([2.5], dtype=float32)
    """
    chex.assert_rank(j, 4)
    return _half_norm(at_least_float32(j), squared)


def _check_gradients(a: jax.Array, b: jax.Array, whose: str) -> None:
    chex.assert_rank([a, b], 4)
    if a.shape != b.shape:
        raise ValueError(
            f"input gradients of {whose} must have one shape (B, H, W, C), got {a.shape} and {b.shape}: "
            "take both at the same images"
        )
