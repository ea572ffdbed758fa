"""Shapes of the networks for small images, with the names of at_jax/models and the layouts of PyTorch.

PyTorch (make_small_networks.py) and the tests build the same weights here. NumPy only.
"""

from parity.networks import norm_shapes

# Name of a network: pixels.
SIZES = {"mobilenet_v2_0.5": 32, "cifar_resnet_8": 16, "vgg_8": 16}
CLASSES = 10
# Expansion, channels at width 0.5 and stride of each block, by stage of one resolution.
INVERTED = (
    ((1, 8, 1), (6, 12, 1), (6, 12, 1)),
    ((6, 16, 2), (6, 16, 1), (6, 16, 1)),
    ((6, 32, 2), *((6, 32, 1),) * 3, *((6, 48, 1),) * 3),
    ((6, 80, 2), *((6, 80, 1),) * 2, (6, 160, 1)),
)
RESIDUAL = ((16, 1), (32, 2), (64, 2))  # channels, stride
VGG = (64, 128, 256, 512, 512)


def shapes(name):
    """Names and shapes of the weights and statistics of a network."""
    return {"mobilenet_v2_0.5": _mobilenet, "cifar_resnet_8": _resnet, "vgg_8": _vgg}[name]()


def _classifier(channels):
    return {"classifier.weight": (CLASSES, channels), "classifier.bias": (CLASSES,)}


def _mobilenet():
    found = {"conv0.weight": (16, 3, 3, 3)} | norm_shapes("bn0", 16)
    before = 16
    for stage, blocks in enumerate(INVERTED, start=1):
        for index, (expansion, after, _) in enumerate(blocks):
            block, hidden = f"stage{stage}_block{index}", before * expansion
            found[f"{block}.expand.weight"] = (hidden, before, 1, 1)
            found[f"{block}.depthwise.weight"] = (hidden, 1, 3, 3)
            found[f"{block}.project.weight"] = (after, hidden, 1, 1)
            for number, channels in enumerate((hidden, hidden, after)):
                found |= norm_shapes(f"{block}.bn{number}", channels)
            before = after
    found["conv1.weight"] = (1280, before, 1, 1)
    return found | norm_shapes("bn1", 1280) | _classifier(1280)


def _resnet():
    found = {"conv1.weight": (16, 3, 3, 3)} | norm_shapes("bn1", 16)
    before = 16
    for stage, (after, _) in enumerate(RESIDUAL, start=1):
        block = f"stage{stage}_block0"
        found[f"{block}.conv1.weight"] = (after, before, 3, 3)
        found[f"{block}.conv2.weight"] = (after, after, 3, 3)
        found |= norm_shapes(f"{block}.bn1", after) | norm_shapes(f"{block}.bn2", after)
        if before != after:
            found[f"{block}.shortcut_conv.weight"] = (after, before, 1, 1)
            found |= norm_shapes(f"{block}.shortcut_bn", after)
        before = after
    return found | _classifier(before)


def _vgg():
    found, before = {}, 3
    for stage, after in enumerate(VGG, start=1):
        found[f"conv{stage}_0.weight"] = (after, before, 3, 3)
        found[f"conv{stage}_0.bias"] = (after,)
        found |= norm_shapes(f"bn{stage}_0", after)
        before = after
    return found | _classifier(before)
