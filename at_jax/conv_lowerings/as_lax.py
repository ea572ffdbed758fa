"""The three operations as lax writes them: the forms that cuDNN and the compiler for TPU recognize."""

import jax
from jax import lax

from at_jax.conv_lowerings.window import DIMENSIONS, Window

__all__ = ["forward", "input_grad", "weight_grad"]


def forward(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """(B, H, W, C), (kh, kw, C / G, F) -> (B, H', W', F)."""
    return lax.conv_general_dilated(
        x,
        w,
        window.strides,
        window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=DIMENSIONS,
        feature_group_count=window.groups,
        precision=window.precision,
    )


def input_grad(g: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """(B, H', W', F), (kh, kw, C / G, F) -> (B, H, W, C)."""
    x = jax.ShapeDtypeStruct((g.shape[0], *window.image, w.shape[2] * window.groups), g.dtype)
    return jax.linear_transpose(lambda x: forward(x, w, window), x)(g)[0]


def weight_grad(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    """(B, H, W, C), (B, H', W', F) -> (kh, kw, C / G, F)."""
    shape = (*window.kernel, x.shape[3] // window.groups, g.shape[3])
    w = jax.ShapeDtypeStruct(shape, x.dtype)
    return jax.linear_transpose(lambda w: forward(x, w, window), w)(g)[0]
