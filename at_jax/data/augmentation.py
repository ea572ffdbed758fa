"""Augmentation and normalisation on the device, inside the training step."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp


@functools.partial(jax.jit, static_argnames=("pad", "mirror"))
def augment(
    key: jax.Array, images: jax.Array, position: jax.Array, *, pad: int, mirror: bool
) -> jax.Array:
    """Crops each image at random after reflect padding, and mirrors half of them.

    The crop's offset is uniform in -pad..pad in both directions; the border is reflected without
    repeating the edge, as `numpy.pad(mode="reflect")`. What happens to an example depends on (key,
    its position, its image) alone, not on the batch's size or how devices share it.

    Args:
      key: A PRNG key, into which the caller has folded the step.
      images: uint8 (B, H, W, C).
      position: int32 (B,), each example's index within the global batch.
      pad: Pixels, less than H and W; 0 does not crop.
      mirror: Whether to mirror left and right with probability 1/2.

    Returns:
      uint8 (B, H, W, C).

    Raises:
      ValueError: `pad` is out of range.

    >>> images = jnp.arange(2 * 4 * 4 * 1, dtype=jnp.uint8).reshape(2, 4, 4, 1)
    >>> out = augment(jax.random.key(0), images, jnp.arange(2), pad=1, mirror=True)
    >>> out.shape, out.dtype
    ((2, 4, 4, 1), dtype('uint8'))
    """
    height, width = images.shape[1:3]
    if not 0 <= pad < min(height, width):
        raise ValueError(
            f"augmentation pad: expected 0 to {min(height, width) - 1} pixels for {height}x{width} "
            f"images (reflection cannot reach further), got {pad}: choose a smaller pad"
        )

    def one(image: jax.Array, place: jax.Array) -> jax.Array:
        offsets, flip = _draw(jax.random.fold_in(key, place), pad, mirror)
        return _crop(image, offsets, flip)

    return jax.vmap(one)(images, position)


def _draw(key: jax.Array, pad: int, mirror: bool) -> tuple[jax.Array, jax.Array]:
    """Draws one example's (rows, columns) offset, int32 (2,) in -pad..pad, and whether to mirror."""
    offset_key, flip_key = jax.random.split(key)
    offsets = jax.random.randint(offset_key, (2,), -pad, pad + 1, jnp.int32)
    flip = jax.random.bernoulli(flip_key) if mirror else jnp.zeros((), bool)
    return offsets, flip


def _crop(image: jax.Array, offsets: jax.Array, flip: jax.Array) -> jax.Array:
    """Takes image (H, W, C) at `offsets` (2,), reflected at its border, then mirrored where `flip`."""
    height, width = image.shape[:2]
    rows = _reflect(jnp.arange(height, dtype=jnp.int32) + offsets[0], height)  # (H,)
    columns = _reflect(jnp.arange(width, dtype=jnp.int32) + offsets[1], width)  # (W,)
    columns = jnp.where(flip, columns[::-1], columns)
    return image[rows[:, None], columns[None, :]]  # (H, W, C)


def _reflect(index: jax.Array, size: int) -> jax.Array:
    """Folds indices from -(size - 1)..2 (size - 1) into 0..size - 1, the edge not repeated."""
    return size - 1 - jnp.abs(size - 1 - jnp.abs(index))


@functools.partial(jax.jit, static_argnames=("dtype",))
def normalize(
    images: jax.Array, mean: Sequence[float], std: Sequence[float], dtype=jnp.float32
) -> jax.Array:
    """Returns (images - mean) / std per channel, computed in float32.

    Args:
      images: (..., C), 0..255.
      mean: C numbers in 0..255 units.
      std: C numbers in 0..255 units, not 0.
      dtype: Of the result.

    Returns:
      `dtype` (..., C).

    Raises:
      ValueError: `mean` or `std` has not one number a channel.

    >>> normalize(jnp.full((1, 1, 1, 1), 130, jnp.uint8), (120.0,), (5.0,)).item()
    2.0
    """
    mean, std = (jnp.asarray(numbers, jnp.float32) for numbers in (mean, std))
    if mean.shape != images.shape[-1:] or std.shape != images.shape[-1:]:
        raise ValueError(
            f"normalize: expected a mean and a std for each of {images.shape[-1]} channels, got "
            f"{mean.shape} and {std.shape}: take them from the same data set as the images"
        )
    # The last axis is written out: implicit rank promotion may be forbidden.
    lift = (1,) * (images.ndim - 1) + mean.shape
    scaled = (images.astype(jnp.float32) - mean.reshape(lift)) / std.reshape(lift)
    return scaled.astype(dtype)
