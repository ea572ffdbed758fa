"""Augmentation and normalization on the device, inside the training step."""

import functools
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from at_jax.errors import UserError, traceable

__all__ = ["PAD_MODES", "augment", "augment_each", "check_range", "normalize"]

# What a crop holds beyond the border of its image.
PAD_MODES = ("reflect", "zero")
# An image with a value of _BRIGHT or more, and augmented values of at most _UNIT, was scaled or normalized.
_BRIGHT, _UNIT = 32, 4.0


def augment(
    key: jax.Array,
    images: jax.Array | np.ndarray,
    positions: jax.Array | np.ndarray,
    *,
    pad: int,
    mirror: bool,
    pad_mode: str = "reflect",
) -> jax.Array:
    """Crop each image at random after padding, and mirror half of them.

    The offset of a crop is uniform in -pad..pad in both directions. The result for an example depends
    only on the key, its position and its image, not on the batch size or the number of devices.

    Args:
      key: PRNG key, with the step folded in.
      images: uint8 ``(B, H, W, C)``.
      positions: int32 ``(B,)``, index of each example in the global batch.
      pad: pixels, less than H and W; 0 does not crop.
      mirror: flip horizontally with probability 1/2.
      pad_mode: ``"reflect"`` reflects the image at its border without repeating the edge, as in
        ``numpy.pad``; ``"zero"`` pads with black.

    Returns:
      uint8 ``(B, H, W, C)``.

    Raises:
      UserError: if ``pad`` is out of range, or ``pad_mode`` unknown.

    >>> images = jnp.arange(2 * 4 * 4 * 1, dtype=jnp.uint8).reshape(2, 4, 4, 1)
    >>> out = augment(jax.random.key(0), images, jnp.arange(2), pad=1, mirror=True)
    >>> out.shape, out.dtype
    ((2, 4, 4, 1), dtype('uint8'))
    """
    height, width = images.shape[1:3]
    if pad_mode not in PAD_MODES:
        raise UserError(
            f"augment: expected a pad_mode of {' or '.join(PAD_MODES)}, got {pad_mode!r}: choose "
            "one of them"
        )
    if not isinstance(pad, numbers.Integral) or not 0 <= pad < min(height, width):
        reflects = pad_mode == "reflect"
        reason = "reflection allows no more" if reflects else "a larger one may leave no image"
        raise UserError(
            f"augment: expected a pad of 0 to {min(height, width) - 1} pixels for {height}x{width} "
            f"images ({reason}), got {pad}: choose pad in this range"
        )
    return _augment(key, images, positions, pad=pad, mirror=mirror, pad_mode=pad_mode)


@functools.partial(jax.jit, static_argnames=("pad", "mirror", "pad_mode"))
def _augment(
    key: jax.Array,
    images: jax.Array,
    positions: jax.Array,
    *,
    pad: int,
    mirror: bool,
    pad_mode: str,
) -> jax.Array:
    def one(image: jax.Array, position: jax.Array) -> jax.Array:
        offsets, flip = _draw(jax.random.fold_in(key, position), pad, mirror)
        return _crop(image, offsets, flip, pad_mode)

    return jax.vmap(one)(images, positions)


def _draw(key: jax.Array, pad: int, mirror: bool) -> tuple[jax.Array, jax.Array]:
    """Draw the offset of one example, int32 (2,) in -pad..pad, and whether to mirror it."""
    offset_key, flip_key = jax.random.split(key)
    offsets = jax.random.randint(offset_key, (2,), -pad, pad + 1, jnp.int32)
    flip = jax.random.bernoulli(flip_key) if mirror else jnp.zeros((), bool)
    return offsets, flip


def _crop(
    image: jax.Array, offsets: jax.Array, flip: jax.Array, pad_mode: str = "reflect"
) -> jax.Array:
    """Shift an image (H, W, C) by (rows, columns), pad it at the border, mirror it if `flip`."""
    height, width = image.shape[:2]
    rows = jnp.arange(height, dtype=jnp.int32) + offsets[0]  # (H,)
    columns = jnp.arange(width, dtype=jnp.int32) + offsets[1]  # (W,)
    columns = jnp.where(flip, columns[::-1], columns)
    inner_rows, inner_columns = _reflect(rows, height), _reflect(columns, width)
    crop = image[inner_rows[:, None], inner_columns[None, :]]  # (H, W, C)
    if pad_mode == "reflect":
        return crop
    # Where reflection moved an index, it was beyond the border.
    inside = (rows == inner_rows)[:, None] & (columns == inner_columns)[None, :]  # (H, W)
    return jnp.where(inside[:, :, None], crop, jnp.zeros_like(crop))


def _reflect(index: jax.Array, size: int) -> jax.Array:
    """Map indices from -(size - 1)..2 (size - 1) into 0..size - 1 without repeating the edge."""
    return size - 1 - jnp.abs(size - 1 - jnp.abs(index))


def augment_each(
    augment: Callable[[jax.Array, jax.Array], Any],
    key: jax.Array,
    images: jax.Array | np.ndarray,
    positions: jax.Array | np.ndarray,
) -> jax.Array:
    """Apply a user-defined augmentation of one example to every example of a batch.

    Each example gets the key ``jax.random.fold_in(key, position)``, as in :func:`augment`. The result
    for an example depends only on the key, its position and its image.

    Args:
      augment: ``augment(key, image)`` returns an image of the same shape ``(H, W, C)``, uint8 or
        float32 in 0..255 (normalization follows). It is vectorized with ``jax.vmap``.
      key: PRNG key, with the step folded in.
      images: uint8 ``(B, H, W, C)``.
      positions: int32 ``(B,)``, index of each example in the global batch.

    Returns:
      uint8 or float32 ``(B, H, W, C)``.

    Raises:
      UserError: if the result has a different shape or dtype, when the function is traced.

    >>> def noise(key, image):
    ...     return image.astype(jnp.float32) + 5 * jax.random.normal(key, image.shape)
    >>> images = jnp.full((2, 4, 4, 1), 100, jnp.uint8)
    >>> out = augment_each(noise, jax.random.key(0), images, jnp.arange(2))
    >>> out.shape, out.dtype
    ((2, 4, 4, 1), dtype('float32'))
    """

    def one(image: Any, position: Any) -> jax.Array:
        augmented = augment(jax.random.fold_in(key, position), image)
        return _check_augmented(augmented, image.shape)

    return jax.vmap(one)(images, positions)


def _check_augmented(augmented: Any, shape: tuple[int, ...]) -> jax.Array:
    subject = f"augment(key, image) on an image of shape {shape}"
    if not isinstance(augmented, jax.Array | np.ndarray):
        raise UserError(
            f"{subject}: expected an image of that shape, got {type(augmented).__name__}: return one "
            "array, the augmented image"
        )
    if augmented.shape != shape:
        raise UserError(
            f"{subject}: expected an image of that shape, got {augmented.shape}: crop or pad back to "
            "(H, W, C)"
        )
    if augmented.dtype not in (jnp.uint8, jnp.float32):
        raise UserError(
            f"{subject}: expected uint8 or float32 in 0..255, got {augmented.dtype}: convert the "
            "result with .astype(jnp.float32)"
        )
    return jnp.asarray(augmented)


def check_range(augment: Callable[[jax.Array, jax.Array], Any], images: np.ndarray) -> None:
    """Apply a user-defined augmentation to some images, and raise if training cannot use it.

    Args:
      augment: see :func:`augment_each`.
      images: uint8 ``(N, H, W, C)``. Dark images and all-zero results are not informative.

    Raises:
      UserError: if JAX cannot trace it, a result has a different shape or dtype, is not finite, or is
        scaled to 0..1.

    >>> check_range(lambda key, image: image[:, ::-1], np.full((1, 2, 2, 1), 99, np.uint8))
    """
    positions = jnp.arange(len(images), dtype=jnp.int32)
    with traceable("augment(key, image)"):
        augmented = augment_each(augment, jax.random.key(0), jnp.asarray(images), positions)
    largest = np.abs(np.asarray(augmented, np.float32)).max(axis=(1, 2, 3))  # (N,)
    if not np.isfinite(largest).all():
        raise UserError(
            "augment(key, image) must return finite values in 0..255, got NaN or infinity: guard "
            "divisions and logarithms"
        )
    informative = largest[(images.max(axis=(1, 2, 3)) >= _BRIGHT) & (largest > 0)]
    if informative.size and informative.max() <= _UNIT:
        raise UserError(
            f"augment(key, image) must return values in 0..255, got at most {informative.max():.3g} for "
            f"images with values up to {images.max()}: do not divide by 255, normalization follows"
        )


def normalize(
    images: jax.Array | np.ndarray,
    mean: Sequence[float] | jax.Array,
    std: Sequence[float] | jax.Array,
    dtype: Any = jnp.float32,
) -> jax.Array:
    """Compute (images - mean) / std per channel, in float32.

    Args:
      images: ``(..., C)`` in 0..255, uint8 or float.
      mean: C numbers in 0..255 units.
      std: C numbers in 0..255 units, not 0.
      dtype: dtype of the result.

    Returns:
      ``dtype`` ``(..., C)``.

    Raises:
      UserError: if ``mean`` or ``std`` does not have one number for each channel.

    >>> normalize(jnp.full((1, 1, 1, 1), 130, jnp.uint8), (120.0,), (5.0,)).item()
    2.0
    """
    return _normalize(images, mean, std, dtype)


@functools.partial(jax.jit, static_argnames=("dtype",))
def _normalize(images: jax.Array, mean: Any, std: Any, dtype: Any) -> jax.Array:
    mean, std = (jnp.asarray(numbers, jnp.float32) for numbers in (mean, std))
    if mean.shape != images.shape[-1:] or std.shape != images.shape[-1:]:
        raise UserError(
            f"normalize: expected mean and std with one number for each of {images.shape[-1]} "
            f"channels, got shapes {mean.shape} and {std.shape}: take them from the data set of the "
            "images"
        )
    # All axes are given: implicit rank promotion may be forbidden.
    lift = (1,) * (images.ndim - 1) + mean.shape
    scaled = (images.astype(jnp.float32) - mean.reshape(lift)) / std.reshape(lift)
    return scaled.astype(dtype)
