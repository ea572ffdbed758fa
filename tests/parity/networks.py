"""Shapes of the reference networks and weights made from their names alone.

PyTorch (make_fixture.py) and the tests both build the weights here, so the fixture need not hold
them. NumPy only; names and layouts are PyTorch's (OIHW), for the ResNets torchvision's.
"""

import zlib

import numpy as np

# Blocks per stage, and whether a block is a bottleneck.
RESNETS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
}


def _norm(name, channels):
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{kind}": (channels,) for kind in kinds}


def wide_resnet_shapes(classes):
    """WRN-10-1: one block a group, widths 16, 32, 64."""
    shapes = {"conv0.weight": (16, 3, 3, 3)}
    for group, (before, width) in enumerate(((16, 16), (16, 32), (32, 64)), start=1):
        block = f"group{group}.block0"
        shapes |= _norm(f"{block}.bn0", before)
        shapes[f"{block}.conv0.weight"] = (width, before, 3, 3)
        shapes |= _norm(f"{block}.bn1", width)
        shapes[f"{block}.conv1.weight"] = (width, width, 3, 3)
        if before != width:
            shapes[f"{block}.convdim.weight"] = (width, before, 1, 1)
    return shapes | _norm("bn", 64) | {"fc.weight": (classes, 64), "fc.bias": (classes,)}


def resnet_shapes(depth, classes):
    """torchvision's state dict of resnet18, 34, 50 or 101, in its order."""
    stages, bottleneck = RESNETS[depth]
    shapes = {"conv1.weight": (64, 3, 7, 7)} | _norm("bn1", 64)
    before = 64
    for stage, blocks in enumerate(stages):
        width = 64 * 2**stage
        after = 4 * width if bottleneck else width
        for index in range(blocks):
            block = f"layer{stage + 1}.{index}"
            if bottleneck:
                kernels = ((width, before, 1), (width, width, 3), (after, width, 1))
            else:
                kernels = ((width, before, 3), (width, width, 3))
            for number, (out, into, size) in enumerate(kernels, start=1):
                shapes[f"{block}.conv{number}.weight"] = (out, into, size, size)
                shapes |= _norm(f"{block}.bn{number}", out)
            if index == 0 and (stage > 0 or before != after):
                shapes[f"{block}.downsample.0.weight"] = (after, before, 1, 1)
                shapes |= _norm(f"{block}.downsample.1", after)
            before = after
    return shapes | {"fc.weight": (classes, before), "fc.bias": (classes,)}


def generated(shapes):
    """One float32 array a name, random but a function of the name (RandomState is frozen)."""
    return {name: _generate(name, shape) for name, shape in shapes.items()}


def _generate(name, shape):
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if len(shape) > 1:
        # Half of He's variance: the sums of residual blocks then stay of order one through the
        # depth, and no bias is too small to be seen in the logits.
        values = random.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    elif name.endswith(("running_var", "weight")):
        values = random.uniform(0.5, 1.5, shape)
    else:
        values = random.standard_normal(shape) * 0.1
    return values.astype(np.float32)
