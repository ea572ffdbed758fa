"""Networks with transfer points, by name."""

import difflib
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from at_jax.errors import UserError
from at_jax.models.adapter import Adapter
from at_jax.models.cifar_resnet import CifarResNet
from at_jax.models.efficientnet_lite import EfficientNetLite
from at_jax.models.mobilenet_v2 import MobileNetV2
from at_jax.models.nin import NIN
from at_jax.models.resnet import ResNet
from at_jax.models.vgg import VGG
from at_jax.models.wide_resnet import WideResNet

__all__ = [
    "NIN", "VGG", "Adapter", "CifarResNet", "EfficientNetLite", "MobileNetV2", "ResNet", "WideResNet",
    "build",
]  # fmt: skip

_INTEGER = r"([0-9]{1,9})"  # \d would match the digits of every script
_NUMBER = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)"
# Pattern of a name to constructor, which is called with the groups of the pattern and the common fields.
_NAMES: dict[str, Callable[..., nn.Module]] = {
    rf"wrn_{_INTEGER}_{_NUMBER}": lambda d, k, **f: WideResNet(int(d), float(k), **f),
    r"nin_(thin|wide)": lambda width, **f: NIN(width, **f),
    r"nin_(thin|wide)_bn": lambda width, **f: NIN(width, batch_norm=True, **f),
    rf"resnet_{_INTEGER}": lambda depth, **f: ResNet(int(depth), **f),
    rf"cifar_resnet_{_INTEGER}": lambda depth, **f: CifarResNet(int(depth), **f),
    rf"cifar_resnet_{_INTEGER}x{_INTEGER}": lambda d, k, **f: CifarResNet(int(d), int(k), **f),
    rf"vgg_{_INTEGER}": lambda depth, **f: VGG(int(depth), **f),
    rf"mobilenet_v2_{_NUMBER}": lambda width, **f: MobileNetV2(float(width), **f),
    r"efficientnet_lite0": EfficientNetLite,
}
KNOWN = (
    "wrn_DEPTH_WIDTH (wrn_16_1, wrn_40_2, ...), nin_thin, nin_wide, nin_thin_bn, nin_wide_bn, "
    "cifar_resnet_DEPTH (cifar_resnet_20, cifar_resnet_56, ...), cifar_resnet_DEPTHx4 "
    "(cifar_resnet_8x4, ...), vgg_8, vgg_13, resnet_18, resnet_34, resnet_50, resnet_101, "
    "mobilenet_v2_WIDTH (mobilenet_v2_0.5, ...), efficientnet_lite0"
)
# Names in RepDistiller that look like those of networks for ImageNet.
_ELSEWHERE = {
    **{rf"resnet_?{depth}": f"cifar_resnet_{depth}" for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{rf"resnet_?{depth}x4": f"cifar_resnet_{depth}x4" for depth in (8, 32)},
    r"mobile_?net_?v2|mobile_half": "mobilenet_v2_0.5",
}
# Candidates for the nearest match; common members represent the wide ResNets.
_EXAMPLES = [
    *("wrn_10_1", "wrn_16_1", "wrn_16_2", "wrn_28_10", "wrn_40_1", "wrn_40_2"),
    *("nin_thin", "nin_wide", "nin_thin_bn", "nin_wide_bn"),
    *("cifar_resnet_20", "cifar_resnet_32", "cifar_resnet_56", "cifar_resnet_110"),
    *("cifar_resnet_8x4", "cifar_resnet_32x4", "vgg_8", "vgg_13"),
    *("resnet_18", "resnet_34", "resnet_50", "resnet_101"),
    *("mobilenet_v2_0.5", "mobilenet_v2_1", "efficientnet_lite0"),
]


def build(
    name: str,
    num_classes: int = 10,
    dtype: Any = jnp.float32,
    bn_axis_name: str | None = None,
) -> nn.Module:
    """Build a network by its name.

    Args:
      name: ``"wrn_16_1"`` (depth, width), ``"nin_thin"``, ``"nin_wide_bn"``, ``"resnet_18"``,
        ``"cifar_resnet_20"``, ``"cifar_resnet_8x4"`` (depth, width), ``"vgg_8"``,
        ``"mobilenet_v2_0.5"``, ``"efficientnet_lite0"`` ...
      num_classes: K.
      dtype: of the computation, ``jnp.float32`` or ``jnp.bfloat16``.
      bn_axis_name: the pmapped axis over which batch statistics are averaged; None on one device.

    Returns:
      A linen module; ``module.apply(variables, images, train=False)`` returns logits ``(B, K)``.

    Raises:
      UserError: for an unknown name, a depth that the family does not have, or no classes.

    >>> build("wrn_16_1", num_classes=100).depth
    16
    """
    if not isinstance(name, str):
        raise UserError(
            f"the name of a network must be a string, got {name!r}: choose one of {KNOWN}"
        )
    for pattern, make in _NAMES.items():
        if match := re.fullmatch(pattern, name):
            return make(
                *match.groups(), num_classes=num_classes, dtype=dtype, bn_axis_name=bn_axis_name
            )
    nearest = [new for old, new in _ELSEWHERE.items() if re.fullmatch(old, name, re.IGNORECASE)]
    nearest = nearest or difflib.get_close_matches(name.lower(), _EXAMPLES, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise UserError(f"unknown network {name!r}: choose one of {KNOWN}{hint}")
