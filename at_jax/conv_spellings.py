"""How the three operations of a convolution are written in terms of what XLA has fast code for.

Each comes in the spelling that is fast on CPU; input and weight gradient also in lax's own, for GPU and
TPU. :mod:`at_jax.conv` makes primitives of them.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@dataclasses.dataclass(frozen=True)
class Window:
    """The geometry that the three operations of one convolution share; spatial pairs (H, W)."""

    image: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    precision: object = None

    @property
    def extent(self) -> tuple[int, int]:
        """Pixels that the dilated kernel covers."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def output(self) -> tuple[int, int]:
        """Height and width of the result of the forward convolution."""
        return tuple(
            max((n + sum(pad) - e) // s + 1, 0)
            for n, pad, e, s in zip(
                self.image, self.padding, self.extent, self.strides, strict=True
            )
        )


def forward(x, w, window: Window):
    """(B, H, W, C), (kh, kw, C, F) -> (B, H', W', F)."""
    return lax.conv_general_dilated(
        x,
        w,
        window.strides,
        window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=DIMENSIONS,
        precision=window.precision,
    )


def input_grad(g, w, window: Window):
    """(B, H', W', F), (kh, kw, C, F) -> (B, H, W, C): the mirrored kernel over the spread-out g."""
    padding = []
    for axis in range(2):
        low = window.extent[axis] - 1 - window.padding[axis][0]
        spread = (window.output[axis] - 1) * window.strides[axis] + 1
        padding.append((low, window.image[axis] + window.extent[axis] - 1 - spread - low))
    return lax.conv_general_dilated(
        g,
        jnp.flip(w, (0, 1)).swapaxes(2, 3),  # (kh, kw, F, C)
        (1, 1),
        padding,
        lhs_dilation=window.strides,
        rhs_dilation=window.dilation,
        dimension_numbers=DIMENSIONS,
        precision=window.precision,
    )


def weight_grad(x, g, window: Window):
    """(B, H, W, C), (B, H', W', F) -> (kh, kw, C, F): a few matrix products over all pixels.

    For tap (i, j) of the kernel, row i of it shifts one operand against the other and column j too. The
    rows are put side by side as channels of the operand that has fewer; then each column is one product,
    contracted over batch and pixels, with kh * C * F results. As a convolution (batch and channels
    swapped, g as an image-sized kernel) XLA:CPU is 1.1 to 17 times slower: of a 3x3 from 32 to 32
    channels on 16x16 pixels 20 ms against 6, of a 1x1 from 96 to 80 on 32x32 208 against 12 (batch 128,
    2 cores, jax 0.10.2).
    """
    (kh, kw), (sh, sw), (dh, dw) = window.kernel, window.strides, window.dilation
    (top, _), (left, _) = window.padding
    channels, features = x.shape[3], g.shape[3]
    if channels < features:
        rows = [_place(x, 1, top - i * dh, window.output[0], step=sh) for i in range(kh)]
        x = jnp.concatenate(rows, axis=3)  # (B, H', W, kh * C)
        columns = [
            _contract(x, _place(g, 2, j * dw - left, window.image[1], spread=sw), window)
            for j in range(kw)
        ]
        return jnp.stack(columns).reshape(kw, kh, channels, features).swapaxes(0, 1)
    rows = [_place(g, 1, i * dh - top, window.image[0], spread=sh) for i in range(kh)]
    g = jnp.concatenate(rows, axis=3)  # (B, H, W', kh * F)
    columns = [
        _contract(_place(x, 2, left - j * dw, window.output[1], step=sw), g, window)
        for j in range(kw)
    ]
    return jnp.stack(columns).reshape(kw, channels, kh, features).transpose(2, 0, 1, 3)


def _place(a, axis: int, low: int, size: int, *, spread: int = 1, step: int = 1):
    """Spread an image along an axis, move it by `low`, cut or fill it up with zeros, keep every step-th.

    Each shift is a pad of its own: XLA:CPU then writes their concatenation four times as fast as slices
    of one padded array.
    """
    moved = low + (a.shape[axis] - 1) * spread + 1
    padding = [(0, 0, 0)] * a.ndim
    padding[axis] = (low, (size - 1) * step + 1 - moved, spread - 1)
    a = lax.pad(a, np.zeros((), a.dtype), padding)
    return lax.slice_in_dim(a, 0, None, step, axis)


def _contract(x, g, window: Window):
    """(B, H, W, M), (B, H, W, N) -> (M, N), in two halves: a product this narrow keeps one core busy."""
    halves = 2 if x.shape[0] % 2 == 0 else 1
    pixels = math.prod(x.shape[:3]) // halves
    x, g = (a.reshape(halves, pixels, a.shape[3]) for a in (x, g))
    product = lax.dot_general(
        x,
        g,
        (((1,), (1,)), ((0,), (0,))),
        precision=window.precision,
        # Half precision is rounded once, after the halves are added.
        preferred_element_type=jnp.float32 if x.dtype.itemsize < 4 else x.dtype,
    )
    return jnp.sum(product, axis=0).astype(x.dtype)


def lax_input_grad(g, w, window: Window):
    """The same as input_grad in lax's own spelling, which cuDNN's patterns are written for."""
    x = jax.ShapeDtypeStruct((g.shape[0], *window.image, w.shape[2]), g.dtype)
    return jax.linear_transpose(lambda x: forward(x, w, window), x)(g)[0]


def lax_weight_grad(x, g, window: Window):
    """The same as weight_grad in lax's own spelling."""
    w = jax.ShapeDtypeStruct((*window.kernel, x.shape[3], g.shape[3]), x.dtype)
    return jax.linear_transpose(lambda w: forward(x, w, window), w)(g)[0]
