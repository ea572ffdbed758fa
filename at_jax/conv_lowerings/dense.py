"""Forward convolution and input gradient, in forms that are fast on CPU."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from at_jax.conv_lowerings import as_lax, winograd
from at_jax.conv_lowerings.window import (
    DIMENSIONS,
    Window,
    inverse_padding,
    mirrored,
    mirrored_kernel,
)

__all__ = [
    "dilated_input_grad",
    "forward",
    "input_grad",
    "input_grad_uses_cells",
    "is_covered",
    "packed_pixels",
]


def packed_pixels(channels: int, features: int, window: Window) -> int:
    """Number of neighbors in a row that a narrow convolution computes as features of one pixel.

    >>> window = Window((32, 32), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    >>> packed_pixels(3, 16, window), packed_pixels(16, 16, window), packed_pixels(32, 32, window)
    (4, 1, 1)
    """
    is_narrow = channels < 8 and features <= 16
    is_plain = window.kernel != (1, 1) and window.dilation == (1, 1)
    if not is_narrow or not is_plain or _right(window) < 0:
        return 1
    return next(pixels for pixels in (4, 2, 1) if window.output[1] % pixels == 0)


def _right(window: Window) -> int:
    """Padding on the right that the last window of a row reaches; negative where pixels are not read."""
    last = (window.output[1] - 1) * window.strides[1] + window.extent[1]
    return last - window.image[1] - window.padding[1][0]


def forward(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """(B, H, W, C), (kh, kw, C, F) -> (B, H', W', F)."""
    channels, features = w.shape[2:]
    if not is_covered(x, w):
        return as_lax.forward(x, w, window)
    if winograd.is_chosen(x.shape[0], channels, features, window, x.dtype.itemsize):
        return winograd.forward(x, w, window)
    pixels = packed_pixels(channels, features, window)
    if pixels == 1:
        return as_lax.forward(x, w, window)
    # The kernel of the neighbor a is the same, a strides further to the right.
    step, width = window.strides[1], window.kernel[1]
    reach = width + (pixels - 1) * step
    shifted = [
        jnp.pad(w, ((0, 0), (a * step, reach - width - a * step), (0, 0), (0, 0)))
        for a in range(pixels)
    ]
    packed = dataclasses.replace(
        window,
        kernel=(window.kernel[0], reach),
        strides=(window.strides[0], pixels * step),
        padding=(window.padding[0], (window.padding[1][0], _right(window))),
    )
    y = as_lax.forward(x, jnp.concatenate(shifted, axis=3), packed)
    return y.reshape(x.shape[0], *window.output, features)


def input_grad(g: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """(B, H', W', F), (kh, kw, C, F) -> (B, H, W, C): the mirrored kernel over the dilated g."""
    if input_grad_uses_cells(w.shape[2], window) and is_covered(g, w):
        return _cells(g, w, window)
    kernel = mirrored_kernel(w)
    if window.strides == (1, 1):
        return forward(g, kernel, mirrored(window))
    return dilated_input_grad(g, kernel, window)


def dilated_input_grad(g: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """The input gradient from the mirrored kernel, over g with zeros between its pixels."""
    return lax.conv_general_dilated(
        g,
        kernel,
        (1, 1),
        inverse_padding(window),
        lhs_dilation=window.strides,
        rhs_dilation=window.dilation,
        dimension_numbers=DIMENSIONS,
        feature_group_count=window.groups,
        precision=window.precision,
    )


def input_grad_uses_cells(channels: int, window: Window) -> bool:
    """Whether the input gradient of a strided convolution is computed by cells of stride x stride pixels.

    The channels of the pixels of a cell are computed side by side, without zeros between the pixels of g.
    Convolutions of more channels, and 1x1 kernels, are slower that way.

    >>> window = Window((32, 32), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1))
    >>> input_grad_uses_cells(16, window), input_grad_uses_cells(32, window)
    (True, False)
    """
    return (
        math.prod(window.strides) > 1
        and window.dilation == (1, 1)
        and window.kernel != (1, 1)
        and channels <= 16
        and min(itertools.chain(*_cell_padding(window))) >= 0
    )


def _offsets(window: Window, axis: int) -> list[tuple[int, int, int]]:
    """(offset, place, tap): the tap pairs pixel ``stride * m + place`` of x with ``g[m + offset]``."""
    stride, (low, _) = window.strides[axis], window.padding[axis]
    return [
        ((place + low - tap) // stride, place, tap)
        for place in range(stride)
        for tap in range(window.kernel[axis])
        if (place + low - tap) % stride == 0
    ]


def _cell_padding(window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding of g for the convolution that computes cells."""
    padding = []
    for axis in range(2):
        offsets = [offset for offset, _, _ in _offsets(window, axis)]
        cells = -(-window.image[axis] // window.strides[axis])
        padding.append((-min(offsets), max(offsets) + cells - window.output[axis]))
    return padding[0], padding[1]


def _cells(g: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """Input gradient: a stride-1 convolution of g with one output position a cell, then depth to space."""
    height, width = window.image
    (sh, sw), channels = window.strides, w.shape[2]
    one_hot = []
    for axis in range(2):
        found = _offsets(window, axis)
        first, last = min(found)[0], max(found)[0]
        table = np.zeros((last - first + 1, window.strides[axis], window.kernel[axis]), w.dtype)
        for offset, place, tap in found:
            table[offset - first, place, tap] = 1
        one_hot.append(table)
    # Exact: every element is one of w's, or 0.
    highest = lax.Precision.HIGHEST
    kernel = jnp.einsum("oai,pbj,ijcf->opfabc", *one_hot, w, precision=highest)
    kernel = kernel.reshape(*kernel.shape[:3], sh * sw * channels)
    cells = lax.conv_general_dilated(
        g, kernel, (1, 1), _cell_padding(window), dimension_numbers=DIMENSIONS,
        precision=window.precision,
    )  # fmt: skip
    rows, columns = cells.shape[1:3]
    pixels = cells.reshape(g.shape[0], rows, columns, sh, sw, channels).transpose(0, 1, 3, 2, 4, 5)
    return pixels.reshape(g.shape[0], rows * sh, columns * sw, channels)[:, :height, :width]


def is_covered(*operands: jax.Array) -> bool:
    """Whether the forms for CPU cover operands: floating point of 32 bits or more, no empty dimension."""
    return all(
        jnp.issubdtype(a.dtype, jnp.inexact) and a.dtype.itemsize >= 4 and 0 not in a.shape
        for a in operands
    )
