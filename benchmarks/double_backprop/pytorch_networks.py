"""WRN, NIN and ResNet in PyTorch, on the weights of Flax.

Tensors have their names in Flax, such as ``"group1_block0/conv0/kernel"``; images are NCHW, kernels OIHW.
"""

import dataclasses
from collections.abc import Mapping

import torch
from torch.nn import functional

__all__ = ["FAMILIES", "Network"]


@dataclasses.dataclass(frozen=True)
class Network:
    """A network in training or evaluation mode, on a flat dictionary of weights and running statistics.

    Attributes:
      name: as for ``at_jax.models.build``.
      tensors: weights and running statistics, by their names in Flax.
      train: normalize by batch statistics instead of running statistics.
      updates_statistics: update the running statistics in training mode.
      bfloat16: run the forward pass under autocast.
    """

    name: str
    tensors: Mapping[str, torch.Tensor]
    train: bool
    updates_statistics: bool = True
    bfloat16: bool = False

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Compute logits (B, K) in float32, and the activations at the transfer points, in order."""
        forward = _FORWARD[self.name.split("_")[0]]
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bfloat16):
            logits, taps = forward(self, images)
        return logits.float(), taps

    def has(self, name: str) -> bool:
        """Whether the network has a convolution of this name."""
        return f"{name}/kernel" in self.tensors

    def blocks(self, prefix: str, conv: str) -> list[str]:
        """Names of the blocks that have weights: ``"group1_block0"``, ``"group1_block1"`` ..."""
        names: list[str] = []  # torch.compile of PyTorch 2.11 cannot trace itertools.takewhile
        while self.has(f"{prefix}_block{len(names)}/{conv}"):
            names.append(f"{prefix}_block{len(names)}")
        return names

    def conv(self, x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        """Apply a convolution, padded by half its kernel."""
        kernel = self.tensors[f"{name}/kernel"]
        bias = self.tensors.get(f"{name}/bias")
        return functional.conv2d(x, kernel, bias, stride, padding=kernel.shape[-1] // 2)

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """Apply batch normalization."""
        scale, bias, mean, var = (
            self.tensors[f"{name}/{kind}"] for kind in ("scale", "bias", "mean", "var")
        )
        if self.train and not self.updates_statistics:
            mean = var = None
        return functional.batch_norm(x, mean, var, scale, bias, training=self.train)

    def classify(self, x: torch.Tensor) -> torch.Tensor:
        """Apply global average pooling and a linear layer."""
        weights = (self.tensors[f"classifier/{kind}"] for kind in ("kernel", "bias"))
        return functional.linear(x.mean((2, 3)), *weights)


def _wide_resnet(net: Network, images: torch.Tensor):
    x, taps = net.conv(images, "conv0"), []
    for group in ("group1", "group2", "group3"):
        for block in net.blocks(group, "conv0"):
            stride = 2 if group != "group1" and block.endswith("block0") else 1
            first = functional.relu_(net.norm(x, f"{block}/bn0"))
            y = net.conv(first, f"{block}/conv0", stride)
            y = functional.relu_(net.norm(y, f"{block}/bn1"))
            y = net.conv(y, f"{block}/conv1")
            shortcut = f"{block}/shortcut"
            x = y + (net.conv(first, shortcut, stride) if net.has(shortcut) else x)
        taps.append(x)
    return net.classify(functional.relu_(net.norm(x, "bn"))), taps


def _nin(net: Network, images: torch.Tensor):
    x, taps = images, []
    for stage, layers in ((1, 3), (2, 3), (3, 2)):
        for layer in range(layers):
            x = net.conv(x, f"conv{stage}_{layer}")
            if f"bn{stage}_{layer}/scale" in net.tensors:
                x = net.norm(x, f"bn{stage}_{layer}")
            x = functional.relu_(x)
        taps.append(x)
        if stage == 1:
            x = functional.max_pool2d(x, 3, 2, 1)
        elif stage == 2:
            x = functional.avg_pool2d(x, 3, 2, 1)  # the divisor is always 9, padding included
    return net.conv(x, "classifier").mean((2, 3)), taps


def _resnet(net: Network, images: torch.Tensor):
    x = functional.relu_(net.norm(net.conv(images, "conv1", 2), "bn1"))
    x, taps = functional.max_pool2d(x, 3, 2, 1), []
    for stage in ("stage1", "stage2", "stage3", "stage4"):
        for block in net.blocks(stage, "conv1"):
            stride = 2 if stage != "stage1" and block.endswith("block0") else 1
            # In a bottleneck (1x1, 3x3, 1x1) the 3x3 convolution is strided.
            strides = (1, stride, 1) if net.has(f"{block}/conv3") else (stride, 1)
            y = x
            for number, step in enumerate(strides, start=1):
                y = net.norm(net.conv(y, f"{block}/conv{number}", step), f"{block}/bn{number}")
                y = functional.relu_(y) if number < len(strides) else y
            if net.has(f"{block}/shortcut_conv"):
                x = net.conv(x, f"{block}/shortcut_conv", stride)
                x = net.norm(x, f"{block}/shortcut_bn")
            x = functional.relu_(y + x)
        taps.append(x)
    return net.classify(x), taps


_FORWARD = {"wrn": _wide_resnet, "nin": _nin, "resnet": _resnet}
FAMILIES = tuple(_FORWARD)
