"""Layers that the networks share, with PyTorch's constants and padding."""

import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from at_jax.checks import NORMALIZE, check_rank
from at_jax.conv import conv_general_dilated
from at_jax.errors import UserError
from at_jax.models.batch_norm import BatchNorm
from at_jax.precision import at_least_float32

__all__ = [
    "batch_norm",
    "check_fields",
    "check_images",
    "classifier",
    "conv",
    "conv_bn",
    "rematerialized",
]


def conv(
    features: int,
    size: int,
    *,
    stride: int = 1,
    groups: int = 1,
    use_bias: bool = False,
    init_mode: Literal["fan_in", "fan_out"] = "fan_in",
    init_scale: float = 2.0,
    same: bool = False,
    dtype: Any = jnp.float32,
    name: str | None = None,
) -> nn.Conv:
    """A square convolution that pads ``size // 2`` on each side and is closed under differentiation.

    "SAME" is for networks that were trained in TensorFlow: with stride 2 and an even number of pixels it
    pads one pixel less at the top and left, while PyTorch's networks pad all sides.

    Args:
      features: output channels.
      size: height and width of the kernel, in pixels, odd.
      stride: step of the window, in pixels.
      groups: of channels that are convolved separately; the number of channels for a depthwise convolution.
      use_bias: add a bias.
      init_mode: He's normal initialization by fan-in or fan-out.
      init_scale: variance of the initial weights times the fan. The fan-out of a depthwise convolution is
        that of all channels; times their number, it is that of one.
      same: pad as TensorFlow's "SAME" does.
      dtype: of the computation; parameters are float32.
      name: of the submodule.
    """
    return nn.Conv(
        features,
        (size, size),
        strides=(stride, stride),
        feature_group_count=groups,
        padding="SAME" if same else [(size // 2, size // 2)] * 2,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=nn.initializers.variance_scaling(init_scale, init_mode, "normal"),
        conv_general_dilated=conv_general_dilated,
        name=name,
    )


def batch_norm(
    x: jax.Array,
    *,
    train: bool,
    dtype: Any,
    axis_name: str | None,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    name: str | None = None,
) -> jax.Array:
    """Batch normalization, by default with PyTorch's constants: (B, H, W, C) -> (B, H, W, C).

    Args:
      x: activations.
      train: normalize by the statistics of the batch and update the running statistics; otherwise
        normalize by the running statistics.
      dtype: of the result; statistics and arithmetic are at least float32.
      axis_name: the pmapped axis over which batch statistics are averaged; None on one device.
      momentum: weight of the old value in the running statistics; 0.9 is PyTorch's momentum 0.1.
      epsilon: added to the variance.
      name: of the submodule.
    """
    norm = BatchNorm(axis_name, momentum=momentum, epsilon=epsilon, name=name)
    # Half precision is promoted before, so that the result is rounded once, to `dtype`.
    return norm(at_least_float32(x), train).astype(dtype)


def conv_bn(
    x: jax.Array,
    features: int,
    size: int,
    names: tuple[str, str],
    norm: Mapping[str, Any],
    **options: Any,
) -> jax.Array:
    """A convolution, initialized by fan-out, and batch normalization: (B, H, W, C) -> (B, H', W', F).

    Args:
      x: activations.
      features: output channels.
      size: height and width of the kernel, in pixels, odd.
      names: of the two submodules.
      norm: arguments of :func:`batch_norm`; its dtype is that of the convolution too.
      **options: of :func:`conv`: ``stride``, ``groups``, ``use_bias``, ``init_scale``, ``same``.
    """
    options |= {"init_mode": "fan_out", "dtype": norm["dtype"]}
    x = conv(features, size, **options, name=names[0])(x)
    return batch_norm(x, **norm, name=names[1])


def classifier(features: jax.Array, num_classes: int, dtype: Any) -> jax.Array:
    """A linear layer with bias, named ``classifier``: (B, C) -> (B, K) logits in at least float32."""
    logits = nn.Dense(
        num_classes,
        dtype=dtype,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
        name="classifier",
    )(features)
    return at_least_float32(logits)


def rematerialized(block: type[nn.Module]) -> type[nn.Module]:
    """A block ``(x, train)`` whose inner activations are recomputed in each backward pass, not stored."""
    return nn.remat(block, static_argnums=(2,))  # train; x is 1, the module itself 0


def check_fields(module: Any) -> None:
    """Raise unless the fields that networks share are valid: depth, number of classes, dtype, flags.

    Raises:
      UserError: naming the network, the field and its value.
    """
    name = type(module).__name__
    for field in ("depth", "num_classes"):
        value = getattr(module, field, 1)
        is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not is_whole or value < 1:
            raise UserError(
                f"{name}: {field} must be a whole number of at least 1, got {value!r}: pass an int"
            )
    for flag in (each.name for each in dataclasses.fields(module) if each.type is bool):
        if not isinstance(value := getattr(module, flag), bool | np.bool_):
            raise UserError(f"{name}: {flag} must be True or False, got {value!r}: pass a bool")
    axes = getattr(module, "bn_axis_name", None)
    # Several axes, as of a mesh of two dimensions, are a tuple.
    each_axis = axes if isinstance(axes, tuple) else () if axes is None else (axes,)
    if not all(isinstance(axis, str) and axis for axis in each_axis):
        raise UserError(
            f"{name}: bn_axis_name must be the name of a mapped axis or None, got {axes!r}: pass a str"
        )
    try:
        dtype = jnp.dtype(module.dtype)
        is_valid = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize >= 2
    except TypeError:  # no dtype
        is_valid = False
    if module.dtype is None or not is_valid:  # NumPy takes None for float64
        raise UserError(
            f"{name}: dtype must be a floating-point type of at least 16 bits, got {module.dtype!r}: use "
            "jnp.float32 or jnp.bfloat16"
        )


def check_images(images: jax.Array, smallest: int, network: str) -> None:
    """Raise unless images are (B, H, W, C), floating point and large enough for the strides.

    Args:
      images: argument of the network.
      smallest: minimum height and width, in pixels: the product of the network's strides.
      network: name, for the message.

    Raises:
      UserError: naming the network, what it expects and what it got.
    """
    check_rank(network, 4, fix=NORMALIZE, images=images)
    if images.shape[1] in (1, 3) and images.shape[3] >= smallest:
        raise UserError(
            f"{network} takes images (B, H, W, C), got {images.shape}, which has its channels first: move "
            "them with jnp.moveaxis(images, 1, -1)"
        )
    if any(side < smallest for side in images.shape[1:3]):  # sizes may be symbols of jax.export
        raise UserError(
            f"{network} needs images of at least {smallest}x{smallest} pixels for its strides, got "
            f"{images.shape[1]}x{images.shape[2]}: resize the images "
            f"(in a config: data.image_size={smallest} or more), or choose another network"
        )
