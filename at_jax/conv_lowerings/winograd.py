"""Winograd's F(2x2, 3x3) for CPU (Lavin & Gray, arXiv:1509.09308): 16 multiplications for 36.

Four pixels of the result come from a tile of 4x4 pixels. The transformed tiles take four times the space of
the image, so the batch is computed in slices that stay in the cache.

The transforms add and subtract pixels of a tile. An infinite pixel therefore gives NaN (inf - inf) where
the direct form gives an infinity, and pixels above a quarter of the largest number can overflow where the
direct form does not.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from at_jax.conv_lowerings.pixels import SLICE_BYTES, images_per_slice, map_slices, slice_size
from at_jax.conv_lowerings.window import Window

__all__ = ["forward", "images_of_slice", "is_chosen"]

# Products of fewer channels cost less than the transforms.
_CHANNELS_FROM = 32
# With larger slices than this the transforms leave the third-level cache, and the direct form is faster.
_MOST_BYTES = 8 * SLICE_BYTES


def is_chosen(batch: int, channels: int, features: int, window: Window, itemsize: int = 4) -> bool:
    """Whether Winograd's form is faster than the direct one.

    >>> window = Window((16, 16), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    >>> is_chosen(64, 32, 32, window), is_chosen(64, 16, 32, window)
    (True, False)
    """
    if not isinstance(batch, int):  # symbolic, as in an exported program: slices have no known size
        return False
    has_form = window.kernel == (3, 3) and window.strides == window.dilation == (1, 1)
    if not has_form or 0 in window.output or min(channels, features) < _CHANNELS_FROM:
        return False
    images = images_of_slice(batch, channels, features, window, itemsize)
    # The transformed kernel is read once a slice: a slice must have work for it.
    is_long = 8 * images * _tiles(window) >= max(channels, features)
    return is_long and images * _bytes(channels, features, window, itemsize) <= _MOST_BYTES


def images_of_slice(
    batch: int, channels: int, features: int, window: Window, itemsize: int = 4
) -> int:
    """Number of images that are transformed at a time.

    >>> window = Window((8, 8), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    >>> images_of_slice(64, 128, 128, window), images_of_slice(64, 512, 512, window)
    (4, 8)
    """
    in_cache = images_per_slice(batch, _bytes(channels, features, window, itemsize))
    with_work = -(-features // (4 * _tiles(window)))
    return max(in_cache, slice_size(batch, with_work))


def _tiles(window: Window) -> int:
    rows, columns = (-(-n // 2) for n in window.output)
    return rows * columns


def _bytes(channels: int, features: int, window: Window, itemsize: int) -> int:
    return 16 * _tiles(window) * (channels + features) * itemsize


def forward(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """(B, H, W, C), (3, 3, C, F) -> (B, H', W', F), for the shapes of :func:`is_chosen`."""
    channels, features = w.shape[2:]
    kernel = _transform_kernel(_transform_kernel(w, 0), 1).reshape(16, channels, features)
    images = images_of_slice(x.shape[0], channels, features, window, x.dtype.itemsize)
    return map_slices(lambda part: _convolve(part, kernel, window), x, images)


def _transform_kernel(w: jax.Array, axis: int) -> jax.Array:
    """Three taps -> (w0, (w0 + w1 + w2) / 2, (w0 - w1 + w2) / 2, w2)."""
    w0, w1, w2 = (lax.index_in_dim(w, i, axis, keepdims=False) for i in range(3))
    outer, inner = (w0 + w2) / 2, w1 / 2
    return jnp.stack([w0, outer + inner, outer - inner, w2], axis)


def _convolve(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    channels, features = kernel.shape[1:]
    height, width = window.output
    rows, columns = -(-height // 2), -(-width // 2)
    (top, _), (left, _) = window.padding
    size = (2 * rows + 2, 2 * columns + 2)
    padding = [(0, 0, 0)] * 4
    for axis, low in ((1, top), (2, left)):
        padding[axis] = (low, size[axis - 1] - x.shape[axis] - low, 0)
    x = lax.pad(x, np.zeros((), x.dtype), padding)
    tiles = [part for row in _transform(x, 1, rows) for part in _transform(row, 2, columns)]
    products = lax.dot_general(
        jnp.stack(tiles).reshape(16, -1, channels),
        kernel,
        (((2,), (1,)), ((0,), (0,))),
        precision=window.precision,
    ).reshape(4, 4, x.shape[0], rows, columns, features)
    pixels = [jnp.stack(_inverse(row), axis=3) for row in _inverse(products)]
    y = jnp.stack(pixels, axis=2)  # (B, rows, 2, columns, 2, F)
    return y.reshape(x.shape[0], 2 * rows, 2 * columns, features)[:, :height, :width]


def _transform(x: jax.Array, axis: int, count: int) -> tuple[jax.Array, ...]:
    """Four pixels from every second on -> (x0 - x2, x1 + x2, x2 - x1, x1 - x3)."""
    x0, x1, x2, x3 = (lax.slice_in_dim(x, i, i + 2 * count - 1, 2, axis) for i in range(4))
    return x0 - x2, x1 + x2, x2 - x1, x1 - x3


def _inverse(products: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Four products along the first axis -> two pixels."""
    first, second, third, fourth = products
    return first + second + third, second - third - fourth
