"""The three operations in the forms that are fastest on CPU."""

import jax

from at_jax.conv_lowerings import dense, grouped
from at_jax.conv_lowerings import weight_grad as dense_weight_grad
from at_jax.conv_lowerings.window import Window

__all__ = ["forward", "input_grad", "weight_grad"]


def forward(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """(B, H, W, C), (kh, kw, C / G, F) -> (B, H', W', F)."""
    return (grouped if window.groups > 1 else dense).forward(x, w, window)


def input_grad(g: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """(B, H', W', F), (kh, kw, C / G, F) -> (B, H, W, C)."""
    return (grouped if window.groups > 1 else dense).input_grad(g, w, window)


def weight_grad(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    """(B, H, W, C), (B, H', W', F) -> (kh, kw, C / G, F)."""
    return (grouped if window.groups > 1 else dense_weight_grad).weight_grad(x, g, window)
