"""Names of network arrays in PyTorch files.

To read the files of another network, add its type to :data:`NAMINGS`. The layouts of linear layers and 2-D
convolutions, including grouped and depthwise ones, need no entry: their kernels have PyTorch's axes in
reverse or shifted order. Transposed convolutions are not supported. A linear layer after a flattening sees
the features in another order: ``(C, H, W)`` in PyTorch, ``(H, W, C)`` here. Such a network must transpose
to PyTorch's order before it flattens.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from at_jax.models.efficientnet_lite import STAGES, EfficientNetLite
from at_jax.models.resnet import ResNet
from at_jax.models.wide_resnet import WideResNet

__all__ = [
    "LEAVES", "NAMINGS", "RANKS", "Family", "Naming", "Path", "from_torch", "joined", "to_torch",
    "torch_shape",
]  # fmt: skip

# ("params", "stage2_block0", "conv1", "kernel"): collection, modules, leaf.
Path = tuple[str, ...]
# Flax leaf to that of most PyTorch modules; a 1-D "weight" is the scale of a BatchNorm.
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# Axes of PyTorch in Flax's order, by rank: OIHW -> HWIO, (K, C) -> (C, K). The kernel of a depthwise
# convolution is (C, 1, H, W) there and (H, W, 1, C) here, which is the same order.
_AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
RANKS = tuple(_AXES)
# A batch normalization that changes nothing: (x - 0) / sqrt(1 - 1e-5 + 1e-5) + 0.
_IDENTITY = {"scale": 1.0, "bias": 0.0, "mean": 0.0, "var": 1 - 1e-5}
_IMAGENET_MEAN, _IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_CIFAR_MEAN, _CIFAR_STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)


class Naming(NamedTuple):
    """Names of one kind of files.

    Attributes:
      name: from the path of a Flax leaf to the name in the file; None for a leaf that such files lack.
      absent: values of the leaves that they lack, by the last part of the path.
    """

    name: Callable[[Path], str | None]
    absent: Mapping[str, float] = {}


class Family(NamedTuple):
    """Networks of a type.

    Attributes:
      title: function from a network to its usual name.
      namings: of the files that can be read; the first one is written.
      image_shape: ``(H, W, C)`` of the images that such files were trained on.
      mean: of their normalization, for pixels in 0..255.
      std: of their normalization.
      stem: name of the first convolution, whose kernel has the number of channels of the images.
    """

    title: Callable[[Any], str]
    namings: tuple[Naming, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    stem: str


def from_torch(array: np.ndarray) -> np.ndarray:
    """Transpose a PyTorch array to Flax's layout."""
    return np.transpose(array, _AXES[array.ndim])


def to_torch(array: np.ndarray) -> np.ndarray:
    """Transpose a Flax array to PyTorch's layout."""
    return np.transpose(array, np.argsort(_AXES[array.ndim]))


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape in PyTorch of an array of Flax."""
    return tuple(shape[axis] for axis in np.argsort(_AXES[len(shape)]))


def joined(modules: tuple[str, ...], leaf: str) -> str:
    """Name of a leaf in PyTorch, from the names of its modules there and Flax's name of the leaf.

    >>> joined(("layer1", "0", "bn1"), "mean")
    'layer1.0.bn1.running_mean'
    """
    return ".".join((*modules, LEAVES[leaf]))


def _block(name: str) -> tuple[int, int] | None:
    """Stage and block of a submodule: "stage2_block0" or "group2_block0"."""
    match = re.fullmatch(r"(?:stage|group)(\d+)_block(\d+)", name)
    return (int(match[1]), int(match[2])) if match else None


def _torchvision(path: Path) -> str:
    """('params', 'stage2_block0', 'conv1', 'kernel') -> 'layer2.0.conv1.weight'."""
    _, *modules, leaf = path
    if block := _block(modules[0]):
        inner = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}
        return joined((f"layer{block[0]}", str(block[1]), inner.get(modules[1], modules[1])), leaf)
    return joined(("fc",) if modules == ["classifier"] else tuple(modules), leaf)


def _authors_resnet(path: Path) -> tuple[str, str]:
    """Prefix and submodule in the code of the authors, which counts from 0: ("group1.block0.", "conv0")."""
    _, *modules, _ = path
    block, inner = _block(modules[0]), modules[-1]
    prefix = f"group{block[0] - 1}.block{block[1]}." if block else ""
    if match := re.fullmatch(r"(conv|bn)(\d)", inner):
        return prefix, f"{match[1]}{int(match[2]) - 1}"
    return prefix, {"classifier": "fc"}.get(inner, inner)


def _authors_folded(path: Path) -> str | None:
    """('params', 'stage2_block0', 'bn1', 'bias') -> 'group1.block0.conv0.bias': as define_teacher."""
    prefix, inner = _authors_resnet(path)
    # Batch normalization is folded into the convolution, whose bias is that of the normalization.
    if inner.startswith("bn"):
        return f"{prefix}conv{inner[2:]}.bias" if path[-1] == "bias" else None
    if inner == "shortcut_bn":
        return None
    return prefix + joined(({"shortcut_conv": "conv_dim"}.get(inner, inner),), path[-1])


def _authors_student(path: Path) -> str | None:
    """('params', 'stage2_block0', 'conv1', 'kernel') -> 'group1.block0.conv0': as define_student."""
    prefix, inner = _authors_resnet(path)
    if inner == "shortcut_bn":
        return None
    if inner == "shortcut_conv" or inner.startswith("conv"):
        return prefix + {"shortcut_conv": "convdim"}.get(inner, inner)
    return prefix + joined((inner,), path[-1])


def _authors_wide_resnet(path: Path) -> str:
    """('params', 'group1_block0', 'conv0', 'kernel') -> 'group0.block0.conv0'."""
    _, *modules, leaf = path
    block = _block(modules[0])
    prefix = f"group{block[0] - 1}.block{block[1]}." if block else ""
    inner = {"shortcut": "convdim", "classifier": "fc"}.get(modules[-1], modules[-1])
    return prefix + (inner if inner.startswith("conv") else joined((inner,), leaf))


def _with_leaves(path: Path) -> str:
    """Names of the authors' code as a module of PyTorch: kernels end in ``.weight``."""
    name = _authors_wide_resnet(path)
    return f"{name}.weight" if path[-1] == "kernel" and not name.endswith(".weight") else name


def _efficientnet(path: Path) -> str:
    """('params', 'stage2_block0', 'depthwise', 'kernel') -> '_blocks.1._depthwise_conv.weight'."""
    _, *modules, leaf = path
    if block := _block(modules[0]):
        # PyTorch counts the blocks of all stages.
        before = sum(group[2] for stage in STAGES[: block[0] - 1] for group in stage)
        inner = modules[1] if modules[1].startswith("bn") else f"{modules[1]}_conv"
        return joined(("_blocks", str(before + block[1]), f"_{inner}"), leaf)
    outer = {"conv0": "conv_stem", "conv1": "conv_head", "classifier": "fc"}
    return joined((f"_{outer.get(modules[0], modules[0])}",), leaf)


NAMINGS: dict[type[nn.Module], Family] = {
    ResNet: Family(
        lambda module: f"ResNet-{module.depth}",
        (
            Naming(_torchvision),
            Naming(_authors_folded, _IDENTITY),
            Naming(_authors_student, _IDENTITY),
        ),
        (224, 224, 3),
        _IMAGENET_MEAN,
        _IMAGENET_STD,
        "conv1",
    ),
    WideResNet: Family(
        lambda module: f"WRN-{module.depth}-{module.width:g}",
        (Naming(_authors_wide_resnet), Naming(_with_leaves)),
        (32, 32, 3),
        _CIFAR_MEAN,
        _CIFAR_STD,
        "conv0",
    ),
    EfficientNetLite: Family(
        lambda module: "EfficientNet-Lite0",
        (Naming(_efficientnet),),
        (224, 224, 3),
        (127.0, 127.0, 127.0),
        (128.0, 128.0, 128.0),
        "conv0",
    ),
}
