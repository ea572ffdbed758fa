"""Convolutions of groups of channels, for CPU: depthwise ones tap by tap, others with XLA's own kernel.

A kernel ``(kh, kw, C / G, F)`` has its features in the order (group, feature of the group).
"""

import functools
import itertools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import lax

from at_jax.conv_lowerings import as_lax
from at_jax.conv_lowerings.dense import dilated_input_grad, is_covered
from at_jax.conv_lowerings.pixels import place, sum_over_slices
from at_jax.conv_lowerings.window import Window, mirrored_kernel

__all__ = ["forward", "input_grad", "weight_grad"]


def forward(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """(B, H, W, C), (kh, kw, C / G, F) -> (B, H', W', F)."""
    if w.shape[2] != 1 or not is_covered(x, w):
        return as_lax.forward(x, w, window)
    x = jnp.repeat(x, w.shape[3] // window.groups, axis=3)  # (B, H, W, F)
    products = (seen * w[i : i + 1, j : j + 1] for i, j, seen in _taps(x, window))
    return functools.reduce(jnp.add, products)


def input_grad(g: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """(B, H', W', F), (kh, kw, C / G, F) -> (B, H, W, C)."""
    channels, features = w.shape[2], w.shape[3] // window.groups
    if channels != 1 or not is_covered(g, w):
        return dilated_input_grad(g, mirrored_kernel(w, window.groups), window)
    (top, _), (left, _) = window.padding
    (height, width), (sh, sw), (dh, dw) = window.image, window.strides, window.dilation

    def moved(i: int, j: int) -> jax.Array:
        rows = place(g * w[i : i + 1, j : j + 1], 1, i * dh - top, height, spread=sh)
        return place(rows, 2, j * dw - left, width, spread=sw)

    taps = itertools.product(*map(range, window.kernel))
    total = functools.reduce(jnp.add, itertools.starmap(moved, taps))
    return jnp.sum(total.reshape(*total.shape[:3], window.groups, features), axis=4)


def weight_grad(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    """(B, H, W, C), (B, H', W', F) -> (kh, kw, C / G, F)."""
    groups, kernel = window.groups, window.kernel
    channels, features = x.shape[3] // groups, g.shape[3] // groups

    def by_taps(x: jax.Array, g: jax.Array) -> jax.Array:
        kind = jnp.float32 if x.dtype.itemsize < 4 else x.dtype
        if channels == 1:
            x = jnp.repeat(x, features, axis=3)
            sums = [
                jnp.sum(seen * g, axis=(0, 1, 2), dtype=kind) for _, _, seen in _taps(x, window)
            ]
            return jnp.stack(sums).reshape(*kernel, 1, -1)
        pixels = math.prod(g.shape[:3])
        taps = jnp.stack([seen for _, _, seen in _taps(x, window)], axis=3)
        product = lax.dot_general(
            taps.reshape(pixels, -1, groups, channels),
            g.reshape(pixels, groups, features),
            (((0,), (0,)), ((2,), (1,))),
            precision=window.precision,
            preferred_element_type=kind,
        )  # (G, kh * kw, C / G, F / G)
        return product.transpose(1, 2, 0, 3).reshape(*kernel, channels, -1)

    moved = math.prod(window.output) * math.prod(kernel) * x.shape[3] * x.dtype.itemsize
    return sum_over_slices(by_taps, x, g, moved).astype(x.dtype)


def _taps(x: jax.Array, window: Window) -> Iterator[tuple[int, int, jax.Array]]:
    """(i, j, pixels of x that tap (i, j) of the kernel sees) for each tap."""
    (top, _), (left, _) = window.padding
    (sh, sw), (dh, dw) = window.strides, window.dilation
    for i, j in itertools.product(*map(range, window.kernel)):
        rows = place(x, 1, top - i * dh, window.output[0], step=sh)
        yield i, j, place(rows, 2, left - j * dw, window.output[1], step=sw)
