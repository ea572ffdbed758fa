"""Write small_networks.npz with PyTorch in float64. Run manually; the suite reads the file.

    python3 -m venv /tmp/torchenv && /tmp/torchenv/bin/pip install torch==2.13.0 numpy
    PYTHONPATH=tests:tests/parity /tmp/torchenv/bin/python tests/parity/make_small_networks.py

The forward passes are those of RepDistiller's networks, reimplemented: MobileNetV2 has ReLU, not ReLU6, and
VGG pools after its first three stages at 32 pixels.
"""

from pathlib import Path

import numpy as np
import torch
from make_fixture import Network, to_nhwc
from parity import networks, small_networks
from torch.nn import functional

FILE = Path(__file__).parent / "small_networks.npz"


class SmallNetwork(Network):
    """Adds biases, groups and the name of the classifier."""

    def conv_bn(self, x, conv, norm, stride=1, groups=1):
        weight = self.weights[f"{conv}.weight"]
        padding, bias = weight.shape[-1] // 2, self.weights.get(f"{conv}.bias")
        return self.norm(functional.conv2d(x, weight, bias, stride, padding, groups=groups), norm)

    def classifier(self, x):
        return functional.linear(
            x.mean((2, 3)), self.weights["classifier.weight"], self.weights["classifier.bias"]
        )


def mobilenet(net, x):
    x, taps = net.relu(net.conv_bn(x, "conv0", "bn0", 2)), {}
    for stage, blocks in enumerate(small_networks.INVERTED, start=1):
        for index, (_, _, stride) in enumerate(blocks):
            block = f"stage{stage}_block{index}"
            y = net.relu(net.conv_bn(x, f"{block}.expand", f"{block}.bn0"))
            groups = y.shape[1]
            y = net.relu(net.conv_bn(y, f"{block}.depthwise", f"{block}.bn1", stride, groups))
            y = net.conv_bn(y, f"{block}.project", f"{block}.bn2")
            x = x + y if stride == 1 and x.shape == y.shape else y
        taps[f"stage{stage}"] = x
    return net.classifier(net.relu(net.conv_bn(x, "conv1", "bn1"))), taps


def resnet(net, x):
    x, taps = net.relu(net.conv_bn(x, "conv1", "bn1")), {}
    for stage, (_, stride) in enumerate(small_networks.RESIDUAL, start=1):
        block = f"stage{stage}_block0"
        y = net.relu(net.conv_bn(x, f"{block}.conv1", f"{block}.bn1", stride))
        y = net.conv_bn(y, f"{block}.conv2", f"{block}.bn2")
        if f"{block}.shortcut_conv.weight" in net.weights:
            x = net.conv_bn(x, f"{block}.shortcut_conv", f"{block}.shortcut_bn", stride)
        x = net.relu(x + y)
        taps[f"stage{stage}"] = x
    return net.classifier(x), taps


def vgg(net, x):
    taps = {}
    for stage in range(1, len(small_networks.VGG) + 1):
        x = net.relu(net.conv_bn(x, f"conv{stage}_0", f"bn{stage}_0"))
        taps[f"stage{stage}"] = x
        x = functional.max_pool2d(x, 2) if stage <= 3 else x
    return net.classifier(x), taps


FORWARD = {"mobilenet_v2_0.5": mobilenet, "cifar_resnet_8": resnet, "vgg_8": vgg}

if __name__ == "__main__":
    arrays = {"torch_version": np.array(torch.__version__)}
    for name, forward in FORWARD.items():
        net = SmallNetwork(networks.generated(small_networks.shapes(name), f"{name} ", gain=2))
        images = torch.from_numpy(networks.images(small_networks.SIZES[name])).double()
        logits, taps = forward(net, images.permute(0, 3, 1, 2))
        arrays[f"{name}/logits"] = logits.numpy().astype(np.float32)
        # The map depends on every channel; the slice of a few channels tests their order.
        for tap, value in taps.items():
            arrays[f"{name}/{tap}/map"] = value.pow(2).mean(1).numpy().astype(np.float32)
            arrays[f"{name}/{tap}/slice"] = to_nhwc(value)[:1, :, :, :4]
    np.savez_compressed(FILE, **arrays)
    print(FILE.name, FILE.stat().st_size, "bytes")
