"""Reading and writing of PyTorch weights, without PyTorch and without executing code from a file.

:func:`load` reads ``.safetensors``, ``.pth`` and ``.pt`` files for a network of at_jax. The supported
names in a file are in :mod:`at_jax.models.pretrained.namings`:

- :class:`at_jax.models.ResNet`: torchvision and timm (resnet18, 34, 50, 101), and the ImageNet networks of
  the authors of attention transfer, whose batch normalizations are folded into the convolutions.
- :class:`at_jax.models.WideResNet`: the authors' code (``group0.block1.conv0``).
- :class:`at_jax.models.EfficientNetLite`: the package efficientnet_lite_pytorch. For its ImageNet weights
  see :mod:`at_jax.models.imagenet`.

Normalize images as during the training of the weights; for ImageNet usually with mean 0.485, 0.456, 0.406
and standard deviation 0.229, 0.224, 0.225 of pixels in 0..1.
"""

from at_jax.models.pretrained.conversion import Loaded, convert, load, state_dict
from at_jax.models.pretrained.files import dumps, read
from at_jax.models.pretrained.header import description, metadata
from at_jax.models.pretrained.matching import Match, family, match
from at_jax.models.pretrained.namings import NAMINGS, Family, Naming, joined

__all__ = [
    "NAMINGS", "Family", "Loaded", "Match", "Naming", "convert", "description", "dumps", "family", "joined",
    "load", "match", "metadata", "read", "state_dict",
]  # fmt: skip
