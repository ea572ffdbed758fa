"""The weight gradient as matrix products over all pixels, for CPU."""

import dataclasses
import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from at_jax.conv_lowerings.pixels import place, sum_over_slices
from at_jax.conv_lowerings.window import Window

__all__ = ["form", "weight_grad", "weight_grad_uses_cells"]

Form = Literal["taps", "pairs", "rows"]
# Products of fewer channels cost less than the sums that Winograd's form needs.
_PAIRS_FROM = 32
# The 7x7 kernel at the input of a ResNet, taps side by side, compiles in 2 s.
_MOST_STRIDED_TAPS = 49


def form(channels: int, features: int, window: Window, itemsize: int = 4) -> Form:
    """Choose how the taps of the kernel become products.

    - ``"taps"``: all taps side by side, one product. For strides and 1x1 kernels, where the copies of the
      images are small.
    - ``"pairs"``: Winograd's F(3, 2) over pairs of pixels, four products for six. For kernels of width 3,
      in single or double precision.
    - ``"rows"``: the rows of taps side by side, one product for each column.

    >>> window = Window((8, 8), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    >>> form(64, 64, window), form(16, 16, window)
    ('pairs', 'rows')
    """
    if window.strides != (1, 1) or window.kernel == (1, 1):
        return "taps"
    is_wide = channels >= max(_PAIRS_FROM, features)
    even = window.output[1] % 2 == 0 and window.kernel[1] == 3 and window.dilation[1] == 1
    return "pairs" if is_wide and even and itemsize >= 4 else "rows"


def weight_grad_uses_cells(window: Window) -> bool:
    """Whether a strided convolution becomes one at stride 1, over cells of stride x stride pixels.

    A large kernel then needs one product per cell, not one shifted copy of the images per tap, with which
    16x16 patches compiled in 7 s. The last cells of a kernel that the stride does not divide are padded.

    >>> weight_grad_uses_cells(Window((64, 64), (16, 16), (16, 16), ((0, 0), (0, 0)), (1, 1)))
    True
    >>> weight_grad_uses_cells(Window((64, 64), (7, 7), (2, 2), ((3, 3), (3, 3)), (1, 1)))
    False
    """
    is_strided = window.strides != (1, 1) and window.dilation == (1, 1)
    return is_strided and math.prod(window.kernel) > _MOST_STRIDED_TAPS


def weight_grad(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    """(B, H, W, C), (B, H', W', F) -> (kh, kw, C, F).

    Tap (i, j) of the kernel pairs the pixels of one operand with those of the other, shifted by row i and
    column j. Half precision is summed in float32 and rounded once.

    As a convolution (batch and channels swapped, g as an image-sized kernel) XLA:CPU is 1.1 to 17 times
    slower. A 3x3 kernel from 32 to 32 channels on 16x16 pixels takes 20 ms instead of 6, a 1x1 kernel from
    96 to 80 channels on 32x32 pixels 208 ms instead of 12 (batch 128, 2 cores, jax 0.10.2).
    """
    if weight_grad_uses_cells(window):
        return _cells(x, g, window)
    channels, features = x.shape[3], g.shape[3]
    kernel_rows, kernel_size = window.kernel[0], math.prod(window.kernel)
    how = form(channels, features, window, x.dtype.itemsize)
    # Numbers that are copied for one image.
    if how == "taps":
        moved = math.prod(window.output) * kernel_size * channels
    elif how == "rows" and channels < features:
        moved = window.output[0] * window.image[1] * kernel_rows * channels
    else:
        moved = window.image[0] * window.output[1] * kernel_rows * features
    products = {"taps": _taps, "pairs": _pairs, "rows": _rows}[how]
    function = functools.partial(products, window=window)
    return sum_over_slices(function, x, g, moved * x.dtype.itemsize).astype(x.dtype)


def _cells(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    (kh, kw), (sh, sw), channels = window.kernel, window.strides, x.shape[3]
    kernel = -(-kh // sh), -(-kw // sw)  # in cells
    rows, columns = (n + k - 1 for n, k in zip(window.output, kernel, strict=True))
    x = place(x, 1, window.padding[0][0], rows * sh)
    x = place(x, 2, window.padding[1][0], columns * sw)
    x = x.reshape(x.shape[0], rows, sh, columns, sw, channels).transpose(0, 1, 3, 2, 4, 5)
    cells = dataclasses.replace(
        window, image=(rows, columns), kernel=kernel, strides=(1, 1), padding=((0, 0), (0, 0))
    )
    w = weight_grad(x.reshape(x.shape[0], rows, columns, sh * sw * channels), g, cells)
    w = w.reshape(*kernel, sh, sw, channels, g.shape[3]).transpose(0, 2, 1, 3, 4, 5)
    return w.reshape(kernel[0] * sh, kernel[1] * sw, channels, g.shape[3])[:kh, :kw]


def _taps(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    (kh, kw), (sh, sw), (dh, dw) = window.kernel, window.strides, window.dilation
    (top, _), (left, _) = window.padding
    rows = (place(x, 1, top - i * dh, window.output[0], step=sh) for i in range(kh))
    taps = [
        place(row, 2, left - j * dw, window.output[1], step=sw) for row in rows for j in range(kw)
    ]
    product = _contract(jnp.concatenate(taps, axis=3), g, window)
    return product.reshape(kh, kw, x.shape[3], g.shape[3])


def _rows(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    """The rows are copies of the operand that has fewer channels."""
    (kh, kw), (dh, dw) = window.kernel, window.dilation
    (top, _), (left, _) = window.padding
    channels, features = x.shape[3], g.shape[3]
    if channels < features:
        rows = [place(x, 1, top - i * dh, window.output[0]) for i in range(kh)]
        x = jnp.concatenate(rows, axis=3)  # (B, H', W, kh * C)
        columns = [
            _contract(x, place(g, 2, j * dw - left, window.image[1]), window) for j in range(kw)
        ]
        return jnp.stack(columns).reshape(kw, kh, channels, features).swapaxes(0, 1)
    g = _rows_of(g, window)  # (B, H, W', kh * F)
    columns = [
        _contract(place(x, 2, left - j * dw, window.output[1]), g, window) for j in range(kw)
    ]
    return jnp.stack(columns).reshape(kw, channels, kh, features).transpose(2, 0, 1, 3)


def _rows_of(g: jax.Array, window: Window) -> jax.Array:
    (kh, _), (dh, _), ((top, _), _) = window.kernel, window.dilation, window.padding
    rows = [place(g, 1, i * dh - top, window.image[0]) for i in range(kh)]
    return jnp.concatenate(rows, axis=3)


def _pairs(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    """Winograd's F(3, 2) along the rows (arXiv:1509.09308): three taps of two pixels from four products."""
    (kh, _), (_, (left, _)) = window.kernel, window.padding
    channels, features, pairs = x.shape[3], g.shape[3], window.output[1] // 2
    g = _rows_of(g, window)
    g0, g1 = (lax.slice_in_dim(g, start, None, 2, axis=2) for start in (0, 1))
    x0, x1, x2, x3 = (place(x, 2, left - j, pairs, step=2) for j in range(4))
    first, second, third, fourth = (
        _contract(a, b, window)
        for a, b in ((x0 - x2, g0), (x1 + x2, g0 + g1), (x2 - x1, g0 - g1), (x1 - x3, -g1))
    )
    half = (second + third) / 2
    columns = jnp.stack([first + half, (second - third) / 2, half + fourth])
    return columns.reshape(3, channels, kh, features).transpose(2, 0, 1, 3)


def _contract(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    """(B, H, W, M), (B, H, W, N) -> (M, N). The product runs faster with the wider operand on the right."""
    if x.shape[3] > g.shape[3]:
        return _contract(g, x, window).T
    pixels = math.prod(x.shape[:3])
    x, g = (a.reshape(pixels, a.shape[3]) for a in (x, g))
    kind = jnp.float32 if x.dtype.itemsize < 4 else x.dtype
    dimensions = (((0,), (0,)), ((), ()))
    return lax.dot_general(
        x, g, dimensions, precision=window.precision, preferred_element_type=kind
    )
