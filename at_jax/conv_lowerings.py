"""Lowerings of the three operations of a convolution to operations that XLA has fast kernels for.

Each operation has a lowering that is fast on CPU. The input and the weight gradient also have the lowering
of lax, for GPU and TPU. :mod:`at_jax.conv` makes primitives of them.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from at_jax.errors import UserError

__all__ = [
    "DIMENSIONS", "Window",
    "forward", "input_grad", "lax_input_grad", "lax_weight_grad", "make_window", "weight_grad",
]  # fmt: skip

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@dataclasses.dataclass(frozen=True)
class Window:
    """The geometry that the three operations of one convolution share.

    Attributes:
      image: height and width of the images, in pixels.
      kernel: height and width of the kernel.
      strides: vertical and horizontal step, in pixels.
      padding: ``((top, bottom), (left, right))``, in pixels.
      dilation: vertical and horizontal distance of the kernel's taps, in pixels.
      precision: as in ``lax.conv_general_dilated``.
    """

    image: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    precision: lax.PrecisionLike = None

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width of the dilated kernel, in pixels."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1

    @property
    def output(self) -> tuple[int, int]:
        """Height and width of the result of the forward convolution; 0 where the kernel does not fit."""
        return self._output(0), self._output(1)

    def _output(self, axis: int) -> int:
        padded = self.image[axis] + sum(self.padding[axis])
        return max((padded - self.extent[axis]) // self.strides[axis] + 1, 0)


def make_window(
    x: Sequence[int],
    w: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    dilation: Sequence[int] | None,
    precision: lax.PrecisionLike,
) -> Window:
    """Build the geometry of a convolution from the shapes x and w, and the arguments of lax.

    Raises:
      UserError: if the kernel is larger than the padded images.
    """
    image, kernel, dilation = _pair(x[1:3]), _pair(w[:2]), _pair(dilation or (1, 1))
    if isinstance(padding, str):
        extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
        padding = lax.padtype_to_pads(image, extent, strides, padding)
    (top, bottom), (left, right) = padding
    window = Window(
        image=image,
        kernel=kernel,
        strides=_pair(strides),
        padding=((int(top), int(bottom)), (int(left), int(right))),
        dilation=dilation,
        precision=precision,
    )
    if 0 in window.output:
        raise UserError(
            f"a {kernel[0]}x{kernel[1]} kernel needs padded images of at least its size, got "
            f"{image[0]}x{image[1]} pixels padded by {window.padding}: use larger images or fewer strides"
        )
    return window


def _pair(values: Sequence[int]) -> tuple[int, int]:
    first, second = values
    return first, second


def forward(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
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


def input_grad(g: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """(B, H', W', F), (kh, kw, C, F) -> (B, H, W, C): the mirrored kernel over the dilated g."""
    padding = []
    for axis in range(2):
        low = window.extent[axis] - 1 - window.padding[axis][0]
        dilated = (window.output[axis] - 1) * window.strides[axis] + 1
        padding.append((low, window.image[axis] + window.extent[axis] - 1 - dilated - low))
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


def weight_grad(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    """(B, H, W, C), (B, H', W', F) -> (kh, kw, C, F): a few matrix products over all pixels.

    Tap (i, j) of the kernel pairs the pixels of one operand with those of the other, shifted by row i and
    column j. The shifts by all rows are concatenated as channels of the operand that has fewer channels.
    Each column is then one product with kh * C * F results, contracted over batch and pixels.

    As a convolution (batch and channels swapped, g as an image-sized kernel) XLA:CPU is 1.1 to 17 times
    slower. A 3x3 kernel from 32 to 32 channels on 16x16 pixels takes 20 ms instead of 6, a 1x1 kernel from
    96 to 80 channels on 32x32 pixels 208 ms instead of 12 (batch 128, 2 cores, jax 0.10.2).
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


def _place(
    a: jax.Array, axis: int, low: int, size: int, *, spread: int = 1, step: int = 1
) -> jax.Array:
    """Dilate an image along an axis, shift it by `low`, crop or zero-pad it, take every step-th row.

    Each shift is a separate pad: XLA:CPU then writes their concatenation four times as fast as slices of
    one padded array.
    """
    moved = low + (a.shape[axis] - 1) * spread + 1
    padding = [(0, 0, 0)] * a.ndim
    padding[axis] = (low, (size - 1) * step + 1 - moved, spread - 1)
    a = lax.pad(a, np.zeros((), a.dtype), padding)
    return lax.slice_in_dim(a, 0, None, step, axis)


def _contract(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    """(B, H, W, M), (B, H, W, N) -> (M, N), as two products: one this narrow would use a single core."""
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


def lax_input_grad(g: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """The result of input_grad, lowered as lax does it: cuDNN recognizes this form."""
    x = jax.ShapeDtypeStruct((g.shape[0], *window.image, w.shape[2]), g.dtype)
    return jax.linear_transpose(lambda x: forward(x, w, window), x)(g)[0]


def lax_weight_grad(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    """The result of weight_grad, lowered as lax does it."""
    w = jax.ShapeDtypeStruct((*window.kernel, x.shape[3], g.shape[3]), x.dtype)
    return jax.linear_transpose(lambda w: forward(x, w, window), w)(g)[0]
