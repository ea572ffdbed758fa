"""Random changes of the colors of training images, on the device."""

import functools

import jax
import jax.numpy as jnp

from at_jax.errors import UserError

__all__ = ["color_jitter"]

_JITTER = 2


def color_jitter(
    key: jax.Array, images: jax.Array, positions: jax.Array, *, strength: float
) -> jax.Array:
    """Change brightness, contrast and saturation of each image at random, in this order.

    Each factor f is uniform in 1 - strength to 1 + strength. An image x becomes f x + (1 - f) y, clipped
    to 0..255, where y is black, then the mean gray level of the image, then the image in gray. The result
    depends only on the key, the position and the image.

    Args:
      key: PRNG key, with the step folded in.
      images: uint8 or float32 ``(B, H, W, C)`` in 0..255; saturation needs three channels.
      positions: int32 ``(B,)``, index of each example in the global batch.
      strength: from 0 to 1.

    Returns:
      float32 ``(B, H, W, C)`` in 0..255.

    Raises:
      UserError: if the strength is out of range.

    >>> images = jnp.full((1, 2, 2, 3), 100, jnp.uint8)
    >>> out = color_jitter(jax.random.key(0), images, jnp.arange(1), strength=0.4)
    >>> out.shape, bool(60 <= out.min() and out.max() <= 140)
    ((1, 2, 2, 3), True)
    """
    if not 0 <= strength <= 1:
        raise UserError(
            f"color_jitter: strength must be from 0 to 1, got {strength}: factors are from 1 - strength to "
            "1 + strength"
        )
    return _color_jitter(key, images, positions, strength=strength)


@functools.partial(jax.jit, static_argnames=("strength",))
def _color_jitter(
    key: jax.Array, images: jax.Array, positions: jax.Array, *, strength: float
) -> jax.Array:
    def one(image: jax.Array, position: jax.Array) -> jax.Array:
        # Crops split the key of an example into its folds 0 and 1.
        own = jax.random.fold_in(jax.random.fold_in(key, position), _JITTER)
        low, high = 1 - strength, 1 + strength
        factors = jax.random.uniform(own, (3,), jnp.float32, minval=low, maxval=high)
        return _jitter(image.astype(jnp.float32), factors)

    return jax.vmap(one)(images, positions)


def _jitter(image: jax.Array, factors: jax.Array) -> jax.Array:
    """Blend an image (H, W, C) with black, its mean gray level and its gray image."""
    image = jnp.clip(factors[0] * image, 0, 255)
    image = jnp.clip(factors[1] * image + (1 - factors[1]) * jnp.mean(_gray(image)), 0, 255)
    if image.shape[-1] == 3:
        image = jnp.clip(factors[2] * image + (1 - factors[2]) * _gray(image), 0, 255)
    return image


def _gray(image: jax.Array) -> jax.Array:
    """Luma (ITU-R BT.601) of an image (H, W, 3), (H, W, 1); the mean of other channels."""
    if image.shape[-1] != 3:
        return jnp.mean(image, axis=-1, keepdims=True)
    luma = jnp.array([0.299, 0.587, 0.114], jnp.float32)
    return jnp.sum(image * luma[None, None, :], axis=-1, keepdims=True)
