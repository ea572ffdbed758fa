"""Convolutions of groups of channels, for CPU: depthwise ones tap by tap, others with XLA's own kernel.

A kernel ``(kh, kw, C / G, F)`` has its features in the order (group, feature of the group).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax import lax

from at_jax.conv_lowerings import as_lax
from at_jax.conv_lowerings.dense import dilated_input_grad, is_covered
from at_jax.conv_lowerings.pixels import place, sum_over_slices
from at_jax.conv_lowerings.window import Window, mirrored_kernel

__all__ = ["forward", "input_grad", "weight_grad"]


# The weight gradient of more taps compiles faster as a loop over the rows of the kernel.
_MOST_UNROLLED_TAPS = 25
# Depthwise kernels of more taps take longer unrolled than in lax: from 15x15 on, 1.3 to 2.3 times as long.
_MOST_DEPTHWISE_TAPS = 121


def _is_large(window: Window) -> bool:
    return math.prod(window.kernel) > _MOST_DEPTHWISE_TAPS


def forward(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """(B, H, W, C), (kh, kw, C / G, F) -> (B, H', W', F)."""
    if w.shape[2] != 1 or not is_covered(x, w) or _is_large(window):
        return as_lax.forward(x, w, window)

    def by_taps(x: jax.Array, w: jax.Array) -> jax.Array:
        x = jnp.repeat(x, w.shape[3] // window.groups, axis=3)  # (B, H, W, F)
        products = (seen * w[i : i + 1, j : j + 1] for i, j, seen in _taps(x, window))
        return functools.reduce(jnp.add, products)

    return _apart(by_taps, x, w, window)


def input_grad(g: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """(B, H', W', F), (kh, kw, C / G, F) -> (B, H, W, C)."""
    channels, features = w.shape[2], w.shape[3] // window.groups
    if channels != 1 or not is_covered(g, w) or _is_large(window):
        return dilated_input_grad(g, mirrored_kernel(w, window.groups), window)
    (top, _), (left, _) = window.padding
    (height, width), (sh, sw), (dh, dw) = window.image, window.strides, window.dilation

    def moved(g: jax.Array, w: jax.Array, i: int, j: int) -> jax.Array:
        rows = place(g * w[i : i + 1, j : j + 1], 1, i * dh - top, height, spread=sh)
        return place(rows, 2, j * dw - left, width, spread=sw)

    def by_taps(g: jax.Array, w: jax.Array) -> jax.Array:
        taps = itertools.product(*map(range, window.kernel))
        total = functools.reduce(jnp.add, (moved(g, w, i, j) for i, j in taps))
        return jnp.sum(total.reshape(*total.shape[:3], window.groups, features), axis=4)

    return _apart(by_taps, g, w, window)


def weight_grad(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    """(B, H, W, C), (B, H', W', F) -> (kh, kw, C / G, F)."""
    taps = math.prod(window.kernel)
    form = _by_taps if taps <= _MOST_UNROLLED_TAPS else _by_rows
    sums = functools.partial(form, window=window)
    moved = math.prod(window.output) * taps * x.shape[3] * x.dtype.itemsize
    return _apart(lambda x, g: sum_over_slices(sums, x, g, moved).astype(x.dtype), x, g, window)


def _by_taps(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    """The weight gradient in at least single precision."""
    groups, kernel = window.groups, window.kernel
    channels, features = x.shape[3] // groups, g.shape[3] // groups
    kind = jnp.float32 if x.dtype.itemsize < 4 else x.dtype
    if channels == 1:
        x = jnp.repeat(x, features, axis=3)
        sums = [jnp.sum(seen * g, axis=(0, 1, 2), dtype=kind) for _, _, seen in _taps(x, window)]
        return jnp.stack(sums).reshape(*kernel, 1, -1)
    pixels = math.prod(g.shape[:3])
    taps = jnp.stack([seen for _, _, seen in _taps(x, window)], axis=3)
    product = lax.dot_general(
        taps.reshape(pixels, math.prod(kernel), groups, channels),
        g.reshape(pixels, groups, features),
        (((0,), (0,)), ((2,), (1,))),
        precision=window.precision,
        preferred_element_type=kind,
    )  # (G, kh * kw, C / G, F / G)
    return product.transpose(1, 2, 0, 3).reshape(*kernel, channels, -1)


def _by_rows(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    """As :func:`_by_taps`, in a loop over the rows of the kernel, which compiles faster."""
    (kh, kw), dilation, (top, _) = window.kernel, window.dilation[0], window.padding[0]
    # Rows of x that one row of the kernel reads.
    seen = (window.output[0] - 1) * window.strides[0] + 1
    x = place(x, 1, top, seen + (kh - 1) * dilation)
    row = dataclasses.replace(
        window, image=(seen, window.image[1]), kernel=(1, kw), padding=((0, 0), window.padding[1])
    )

    def of_row(i: jax.Array) -> jax.Array:
        return _by_taps(lax.dynamic_slice_in_dim(x, i * dilation, seen, 1), g, row)[0]

    return lax.map(of_row, jnp.arange(kh))


def _apart(
    operation: Callable[[jax.Array, jax.Array], jax.Array],
    a: jax.Array,
    b: jax.Array,
    window: Window,
) -> jax.Array:
    """Compute an operation apart from those around it.

    Fused with the taps of the next convolution, each tap would be computed again for each tap of it. On a
    CPU of 2 cores, the second-order gradient of a 7x7 depthwise convolution compiles in 27 s instead of
    2 and takes 1259 ms instead of 61 (8 images of 32x32x32), and the gradients of MobileNetV2 and
    EfficientNet-Lite0 take 4 to 12 % longer.
    """
    if window.kernel == (1, 1):
        return operation(a, b)
    return lax.optimization_barrier(operation(*lax.optimization_barrier((a, b))))


def _taps(x: jax.Array, window: Window) -> Iterator[tuple[int, int, jax.Array]]:
    """(i, j, pixels of x that tap (i, j) of the kernel reads) for each tap."""
    (top, _), (left, _) = window.padding
    (sh, sw), (dh, dw) = window.strides, window.dilation
    for i, j in itertools.product(*map(range, window.kernel)):
        rows = place(x, 1, top - i * dh, window.output[0], step=sh)
        yield i, j, place(rows, 2, left - j * dw, window.output[1], step=sw)
