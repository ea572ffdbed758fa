"""The operations of a convolution under vmap, as the same operations of larger arrays."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["batched"]

_MOST_UNROLLED = 8

Operation = Callable[[jax.Array, jax.Array], jax.Array]
Dims = Sequence[int | None]


def batched(
    operation: Operation,
    operands: Sequence[jax.Array],
    dims: Dims,
    groups: int,
    free_axes: tuple[int, int],
    out_axes: tuple[int, int],
) -> tuple[jax.Array, int]:
    """Apply a bilinear operation to vmapped operands.

    Each operand has one axis that the other lacks: B of x and F of w (forward), B of g and C of w (input
    gradient), C of x and F of g (weight gradient). If one operand is vmapped, its vmapped axis is merged
    into that axis. If both are, a merge would waste work: up to eight pairs are unrolled, and more are
    computed one after another in a loop, whose compile time does not depend on their number. (Groups of
    channels, as in lax, take up to seven times as long on CPU.)

    Args:
      operation: forward convolution, input gradient or weight gradient.
      operands: of it, with a vmapped axis.
      dims: of each operand, its vmapped axis, or None.
      groups: of channels, of the convolution.
      free_axes: of each operand, the axis that the other lacks.
      out_axes: positions of these axes in the result.

    Returns:
      The result and its vmapped axis.
    """
    vmapped = [(a, d) for a, d in zip(operands, dims, strict=True) if d is not None]
    array, dim = vmapped[0]
    size = array.shape[dim]
    if size == 0:
        return _empty(operation, operands, dims), 0
    if len(vmapped) == 1:
        this = 1 if dims[0] is None else 0
        # All groups are on the last axis, of C or F.
        own, out = (groups if axes[this] == 3 else 1 for axes in (free_axes, out_axes))
        folded = list(operands)
        folded[this] = _fold(array, dim, free_axes[this], own)
        return _unfold(operation(*folded), out_axes[this], out, size), 0
    a, b = (jnp.moveaxis(array, dim, 0) for array, dim in vmapped)
    if not isinstance(size, int) or size > _MOST_UNROLLED:
        return lax.map(lambda pair: operation(*pair), (a, b)), 0
    return jnp.stack([operation(x, y) for x, y in zip(a, b, strict=True)]), 0


def _empty(operation: Operation, operands: Sequence[jax.Array], dims: Dims) -> jax.Array:
    """The result of no example: (0, ...)."""
    shapes = (
        a.shape if d is None else a.shape[:d] + a.shape[d + 1 :]
        for a, d in zip(operands, dims, strict=True)
    )
    dtype = operands[0].dtype
    one = jax.eval_shape(operation, *(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes))
    return jnp.zeros((0, *one.shape), dtype)


def _fold(array: jax.Array, source: int, axis: int, groups: int) -> jax.Array:
    """Merge the vmapped axis ``source`` into ``axis``, within each group: (G, n) -> (G, size * n)."""
    array = jnp.moveaxis(array, source, 0)
    size, *shape = array.shape
    split = (groups, shape[axis] // groups)
    array = array.reshape(size, *shape[:axis], *split, *shape[axis + 1 :])
    array = jnp.moveaxis(array, 0, axis + 1)  # (..., G, size, n, ...)
    return array.reshape(*shape[:axis], size * shape[axis], *shape[axis + 1 :])


def _unfold(array: jax.Array, axis: int, groups: int, size: int) -> jax.Array:
    """Invert _fold on a result: (..., G * size * n, ...) -> (size, ..., G * n, ...)."""
    shape = array.shape
    split = (groups, size, shape[axis] // (groups * size))
    array = array.reshape(*shape[:axis], *split, *shape[axis + 1 :])
    array = jnp.moveaxis(array, axis + 1, 0)
    return array.reshape(size, *shape[:axis], shape[axis] // size, *shape[axis + 1 :])
