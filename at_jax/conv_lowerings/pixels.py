"""Moving pixels: shifts of images, and slices of a batch that stay in the cache."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from at_jax.conv_lowerings.shardings import varying_as

__all__ = [
    "SLICE_BYTES", "images_per_slice", "map_slices", "place", "slice_size", "sum_over_slices",
]  # fmt: skip

# A slice of about this size stays in the cache of one core, next to its product. With slices of 2 MiB
# weight gradients take up to 10 % longer, with slices of 4 MiB 10 to 50 % (16 to 64 channels, batch 64, one
# core of an EPYC with 512 KiB of second-level cache).
SLICE_BYTES = 2**20


def place(
    a: jax.Array, axis: int, low: int, size: int, *, spread: int = 1, step: int = 1
) -> jax.Array:
    """Dilate an image along an axis, shift it by ``low``, crop or zero-pad it, keep every ``step``-th row.

    Each shift is a separate pad: XLA:CPU then writes their concatenation four times as fast as slices of
    one padded array. Rows that a negative shift drops are cropped before the dilation: XLA's partitioner
    aborts on a pad that does both.
    """
    if spread > 1 and low < 0:
        dropped = min(-(low // spread), a.shape[axis] - 1)
        a, low = lax.slice_in_dim(a, dropped, None, axis=axis), low + dropped * spread
    moved = low + (a.shape[axis] - 1) * spread + 1
    padding = [(0, 0, 0)] * a.ndim
    padding[axis] = (low, (size - 1) * step + 1 - moved, spread - 1)
    a = lax.pad(a, np.zeros((), a.dtype), padding)
    return lax.slice_in_dim(a, 0, None, step, axis)


def slice_size(batch: int, most: int) -> int:
    """Number of images of a slice, at most ``most`` and at least 1.

    A divisor of the batch, unless all that fit are smaller than half of ``most``. Then the last slice has
    fewer images than the others, and its program is compiled separately.

    >>> slice_size(64, 20), slice_size(127, 20), slice_size(7, 3), slice_size(6, 8)
    (16, 19, 3, 6)
    """
    most = min(max(most, 1), batch)
    divisor = max(n for n in range(1, most + 1) if batch % n == 0)
    slices = -(-batch // most)
    return divisor if 2 * divisor >= most else -(-batch // slices)


def images_per_slice(batch: int, bytes_per_image: int) -> int:
    """:func:`slice_size` of images that take at most ``SLICE_BYTES``.

    >>> images_per_slice(64, 98304), images_per_slice(64, 2**24), images_per_slice(6, 10)
    (8, 1, 6)
    """
    return slice_size(batch, SLICE_BYTES // max(bytes_per_image, 1))


def map_slices(function: Callable[[jax.Array], jax.Array], x: jax.Array, size: int) -> jax.Array:
    """Concatenate ``function`` of slices of ``size`` images of x; the last one may have fewer."""
    batch = x.shape[0]
    if size >= batch:
        return function(x)
    part = jax.eval_shape(function, jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype))
    total = varying_as(jnp.zeros((batch, *part.shape[1:]), part.dtype), x)

    def body(index: jax.Array, total: jax.Array) -> jax.Array:
        result = function(lax.dynamic_slice_in_dim(x, index * size, size))
        return lax.dynamic_update_slice_in_dim(total, result, index * size, 0)

    total = lax.fori_loop(0, batch // size, body, total)
    if rest := batch % size:
        last = function(lax.slice_in_dim(x, batch - rest, batch))
        total = lax.dynamic_update_slice_in_dim(total, last, batch - rest, 0)
    return total


def sum_over_slices(
    function: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    g: jax.Array,
    bytes_per_image: int,
) -> jax.Array:
    """Sum ``function`` of slices of the batch of x and g.

    A scan over x with a leading axis of slices makes XLA:CPU recompute the activation x in that shape. A
    loop that takes slices reads the existing array.
    """
    batch = x.shape[0]
    # A symbolic batch, as in an exported program, has no known slices.
    if not isinstance(batch, int) or batch == 0:
        return function(x, g)
    size = images_per_slice(batch, bytes_per_image)
    if size == batch:
        return function(x, g)

    def body(index: jax.Array, total: jax.Array) -> jax.Array:
        parts = (lax.dynamic_slice_in_dim(a, index * size, size) for a in (x, g))
        return total + function(*parts)

    part = jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
    result = jax.eval_shape(function, part, jax.ShapeDtypeStruct((size, *g.shape[1:]), g.dtype))
    total = varying_as(jnp.zeros(result.shape, result.dtype), x, g)
    total = lax.fori_loop(0, batch // size, body, total)
    if rest := batch % size:
        total = total + function(*(lax.slice_in_dim(a, batch - rest, batch) for a in (x, g)))
    return total
