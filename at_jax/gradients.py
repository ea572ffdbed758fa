r"""Input gradients, and the loss terms on them.

The gradient of the loss with respect to the image, :math:`J = \partial L / \partial x`, shows where the
network is sensitive. Training on a function of J differentiates twice: with respect to the images inside
the loss, then with respect to the parameters. Section 3.2 of Zagoruyko & Komodakis, arXiv:1612.03928.

Each term returns ``(B,)``, the quantity that its weight beta multiplies, as in :mod:`at_jax.losses`.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np

from at_jax import maps
from at_jax.checks import NORMALIZE, check_array, check_floating, check_rank
from at_jax.errors import UserError
from at_jax.precision import Array, at_least_float32

__all__ = ["flip_symmetry", "gradient_penalty", "gradient_transfer", "value_and_input_gradient"]

Aux = TypeVar("Aux")


@overload
def value_and_input_gradient(
    loss: Callable[[jax.Array], jax.Array], images: Array, has_aux: Literal[False] = False
) -> tuple[jax.Array, jax.Array]: ...
@overload
def value_and_input_gradient(
    loss: Callable[[jax.Array], tuple[jax.Array, Aux]], images: Array, has_aux: Literal[True]
) -> tuple[tuple[jax.Array, Aux], jax.Array]: ...
@overload
def value_and_input_gradient(
    loss: Callable[[jax.Array], Any], images: Array, has_aux: bool
) -> tuple[Any, jax.Array]: ...
def value_and_input_gradient(
    loss: Callable[[jax.Array], Any], images: Array, has_aux: bool = False
) -> tuple[Any, jax.Array]:
    r"""Evaluate a per-example loss and its gradient with respect to the images.

    Takes one forward and one backward pass. The *sum* over examples is differentiated, so row b of J is
    the gradient of example b's own loss, for any batch size and any number of devices. With the mean, J
    would shrink as 1/B. If batch statistics couple the examples, row b is the gradient of the loss of the
    whole batch.

    Args:
      loss: images ``(B, H, W, C)`` to per-example losses ``(B,)``, or to ``((B,), aux)``.
      images: normalized, floating point, ``(B, H, W, C)``.
      has_aux: ``loss`` also returns auxiliary data: logits, taps, new statistics.

    Returns:
      The result of ``loss``, and J, ``(B, H, W, C)``, in units of loss per normalized pixel.

    Raises:
      UserError: if the images are not floating point, or ``loss`` does not return floating point ``(B,)``.

    >>> import jax.numpy as jnp
    >>> images = jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1)
    >>> values, j = value_and_input_gradient(lambda x: jnp.sum(x**2, axis=(1, 2, 3)), images)
    >>> values, j.ravel()
    (Array([1., 9.], dtype=float32), Array([2., 6.], dtype=float32))
    """
    check_array("value_and_input_gradient", fix=NORMALIZE, images=images)

    def summed(x: jax.Array) -> tuple[jax.Array, Any]:
        result = loss(x)
        values = _per_example_values(result, has_aux, x.shape[:1])
        return jnp.sum(values), result

    (_, result), gradient = jax.value_and_grad(summed, has_aux=True)(images)
    return result, gradient


def _per_example_values(result: Any, has_aux: bool, shape: tuple[int, ...]) -> jax.Array:
    """First part of what a loss returns. Raise unless it is a floating-point array of this shape."""
    subject = "value_and_input_gradient: loss"
    is_pair = isinstance(result, tuple) and len(result) == 2
    if has_aux and not is_pair:
        raise UserError(
            f"{subject} must return a pair (values, aux) with has_aux=True, got "
            f"{type(result).__name__}: return both, or leave has_aux out"
        )
    if not has_aux and isinstance(result, tuple | list | dict):
        raise UserError(
            f"{subject} must return one array, got {type(result).__name__}: pass has_aux=True if it "
            "returns (values, aux)"
        )
    values = result[0] if has_aux else result
    got = getattr(values, "shape", None)
    if got != shape:
        raise UserError(
            f"{subject} must return one number per example, shape {shape}, got "
            f"{type(values).__name__ if got is None else got}: do not take the mean in it"
        )
    fix = "integers have no gradient"
    check_floating("value_and_input_gradient", fix, **{"the result of loss": values})
    return values


def gradient_transfer(j_s: Array, j_t: Array, *, squared: bool = False) -> jax.Array:
    r"""Gradient-based attention transfer: :math:`\frac12 \|J_S - J_T\|_2`.

    Args:
      j_s: input gradients of the student, ``(B, H, W, C)``.
      j_t: input gradients of the teacher at the same images, ``(B, H, W, C)``.
      squared: half the square of the norm instead.

    Returns:
      ``(B,)``, in the units of the input gradients (loss per normalized pixel), or their squares. It is 0,
      with zero gradient, where the input gradients agree.

    Raises:
      UserError: for a wrong rank or dtype, different shapes, or a ``squared`` that is not a bool.

    Section 3.2 of arXiv:1612.03928.

    >>> import jax.numpy as jnp
    >>> j = jnp.array([3.0, 4.0]).reshape(1, 1, 2, 1)
    >>> gradient_transfer(j, jnp.zeros_like(j)), gradient_transfer(j, -j, squared=True)
    (Array([2.5], dtype=float32), Array([50.], dtype=float32))
    """
    _check("gradient_transfer", squared, j_s=j_s, j_t=j_t)
    return _gradient_transfer(j_s, j_t, squared)


@functools.partial(jax.jit, static_argnames="squared")
def _gradient_transfer(j_s, j_t, squared):
    return _half_norm(at_least_float32(j_s) - at_least_float32(j_t), squared)


def flip_symmetry(j: Array, j_flipped: Array, *, squared: bool = False) -> jax.Array:
    r"""Symmetry under horizontal flips: :math:`\frac12 \|J(x) - flip(J(flip(x)))\|_2`.

    It needs no teacher: a network should be as sensitive to a pixel as to its mirror image.

    Args:
      j: input gradients at the images, ``(B, H, W, C)``.
      j_flipped: input gradients at the mirrored images, not yet mirrored back, ``(B, H, W, C)``.
      squared: half the square of the norm instead.

    Returns:
      ``(B,)``, in the units of the input gradients (loss per normalized pixel), or their squares. It is 0,
      with zero gradient, where they are mirror images of each other.

    Raises:
      UserError: for a wrong rank or dtype, shapes that differ, or a ``squared`` that is not a bool.

    Equation 6 of arXiv:1612.03928, section 3.2.

    >>> import jax.numpy as jnp
    >>> j = jnp.array([3.0, 4.0]).reshape(1, 1, 2, 1)
    >>> flip_symmetry(j, j[:, :, ::-1])
    Array([0.], dtype=float32)
    """
    _check("flip_symmetry", squared, j=j, j_flipped=j_flipped)
    return _flip_symmetry(j, j_flipped, squared)


@functools.partial(jax.jit, static_argnames="squared")
def _flip_symmetry(j, j_flipped, squared):
    return _half_norm(at_least_float32(j) - jnp.flip(at_least_float32(j_flipped), axis=2), squared)


def gradient_penalty(j: Array, *, squared: bool = False) -> jax.Array:
    r"""Double backpropagation, min-l2: :math:`\frac12 \|J\|_2`.

    Args:
      j: input gradients, ``(B, H, W, C)``.
      squared: half the square of the norm instead, as in Drucker and LeCun.

    Returns:
      ``(B,)``, in the units of the input gradients (loss per normalized pixel), or their squares. It is 0,
      with zero gradient, where they are 0.

    Raises:
      UserError: for a wrong rank or dtype, or a ``squared`` that is not a bool.

    Drucker & LeCun, "Improving generalization performance using double backpropagation", 1992.

    >>> import jax.numpy as jnp
    >>> gradient_penalty(jnp.array([3.0, 4.0]).reshape(1, 1, 2, 1))
    Array([2.5], dtype=float32)
    """
    _check("gradient_penalty", squared, j=j)
    return _gradient_penalty(j, squared)


@functools.partial(jax.jit, static_argnames="squared")
def _gradient_penalty(j, squared):
    return _half_norm(at_least_float32(j), squared)


def _half_norm(x: jax.Array, squared: bool) -> jax.Array:
    """(B, ...) -> (B,): half the l2 norm of each example, or half its square."""
    if squared:
        return jnp.sum(jnp.square(x), axis=tuple(range(1, x.ndim))) / 2
    return maps.l2_norm(x) / 2


def _check(function: str, squared: bool, **gradients: Any) -> None:
    if not isinstance(squared, bool | np.bool_):
        raise UserError(
            f"{function}: squared must be True (half the square of the norm) or False (half the norm), "
            f"got {squared!r}"
        )
    check_rank(function, 4, **gradients)
    if len({gradient.shape for gradient in gradients.values()}) > 1:
        shapes = " and ".join(f"{name} {gradient.shape}" for name, gradient in gradients.items())
        raise UserError(
            f"{function}: input gradients must have the same shape, got {shapes}: compute both for "
            "images of one shape"
        )
