"""Shapes of the reference networks, and weights that are functions of their names.

PyTorch (make_fixture.py) and the tests build the same weights here, so the fixture does not store them.
NumPy only. Names and layouts are PyTorch's (OIHW), for the ResNets torchvision's.
"""

import zlib

import numpy as np

# Blocks per stage; True for bottleneck blocks.
RESNETS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
}

# Of the files in torch_files/.
FILE_SHAPES = {
    "conv.weight": (4, 3, 5, 2),
    "bn.weight": (4,),
    "bn.running_var": (4,),
    "fc.weight": (2, 4),
}


def norm_shapes(name, channels):
    """Weights and statistics of a batch normalization."""
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{kind}": (channels,) for kind in kinds}


def wide_resnet_shapes(classes):
    """WRN-10-1: one block per group, widths 16, 32, 64."""
    shapes = {"conv0.weight": (16, 3, 3, 3)}
    for group, (before, width) in enumerate(((16, 16), (16, 32), (32, 64)), start=1):
        block = f"group{group}.block0"
        shapes |= norm_shapes(f"{block}.bn0", before)
        shapes[f"{block}.conv0.weight"] = (width, before, 3, 3)
        shapes |= norm_shapes(f"{block}.bn1", width)
        shapes[f"{block}.conv1.weight"] = (width, width, 3, 3)
        if before != width:
            shapes[f"{block}.convdim.weight"] = (width, before, 1, 1)
    return shapes | norm_shapes("bn", 64) | {"fc.weight": (classes, 64), "fc.bias": (classes,)}


def resnet_shapes(depth, classes):
    """torchvision's state dict of resnet18, 34, 50 or 101, in its order."""
    stages, bottleneck = RESNETS[depth]
    shapes = {"conv1.weight": (64, 3, 7, 7)} | norm_shapes("bn1", 64)
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
                shapes |= norm_shapes(f"{block}.bn{number}", out)
            if index == 0 and (stage > 0 or before != after):
                shapes[f"{block}.downsample.0.weight"] = (after, before, 1, 1)
                shapes |= norm_shapes(f"{block}.downsample.1", after)
            before = after
    return shapes | {"fc.weight": (classes, before), "fc.bias": (classes,)}


def folded_resnet_shapes(depth, classes):
    """The authors' ImageNet ResNet-18 or 34, whose norms are folded: convolutions with a bias."""
    shapes = {}
    for name, shape in resnet_shapes(depth, classes).items():
        block, conv = _authors_name(name)
        if "downsample.0" in name:
            shapes[f"{block}conv_dim.weight"] = shape
        elif conv.startswith("conv"):
            shapes |= {f"{block}{conv}.weight": shape, f"{block}{conv}.bias": shape[:1]}
        elif name.startswith("fc"):
            shapes[name] = shape
    return shapes


def student_resnet_shapes(classes):
    """The authors' ImageNet student of depth 18: shortcuts have no norm."""
    shapes = {}
    for name, shape in resnet_shapes(18, classes).items():
        block, inner = _authors_name(name)
        if "downsample.0" in name:
            shapes[f"{block}convdim"] = shape
        elif inner.startswith("conv"):
            shapes[f"{block}{inner}"] = shape
        elif "downsample" not in name:
            shapes[f"{block}{inner}.{name.split('.')[-1]}"] = shape
    return shapes


def _authors_name(name):
    """("group1.block0.", "conv1") for "layer2.0.conv2.weight": the authors count from 0."""
    *block, inner, _ = name.split(".")
    if inner.startswith(("conv", "bn")):
        inner = f"{inner[:-1]}{int(inner[-1]) - 1}"
    block = f"group{int(block[0][-1]) - 1}.block{block[1]}." if block else ""
    return block, inner


def reference_shapes(depth, width, classes):
    """The authors' WRN: convolutions have no suffix, groups count from 0."""
    shapes, before = {"conv0": (16, 3, 3, 3)}, 16
    for group in range(3):
        after = 16 * 2**group * width
        for index in range((depth - 4) // 6):
            block = f"group{group}.block{index}"
            shapes |= norm_shapes(f"{block}.bn0", before) | norm_shapes(f"{block}.bn1", after)
            shapes[f"{block}.conv0"] = (after, before, 3, 3)
            shapes[f"{block}.conv1"] = (after, after, 3, 3)
            if before != after:
                shapes[f"{block}.convdim"] = (after, before, 1, 1)
            before = after
    return (
        shapes | norm_shapes("bn", before) | {"fc.weight": (classes, before), "fc.bias": (classes,)}
    )


def images(size):
    """Two normalized images, float32, a function of their size."""
    random = np.random.RandomState(size)
    return random.standard_normal((2, size, size, 3)).astype(np.float32)


def nin_shapes(classes):
    """The thin NIN without batch normalization, with the names of at_jax/models/nin.py."""
    shapes, before = {}, 3
    for stage, (widths, size) in enumerate(
        (((96, 80, 48), 5), ((96, 96, 96), 5), ((96, 96), 3)), start=1
    ):
        for index, width in enumerate(widths):
            side = size if index == 0 else 1
            shapes[f"conv{stage}_{index}.weight"] = (width, before, side, side)
            shapes[f"conv{stage}_{index}.bias"] = (width,)
            before = width
    return shapes | {"classifier.weight": (classes, before, 1, 1), "classifier.bias": (classes,)}


def generated(shapes, prefix="", gain=1):
    """One float32 array per name, random but a function of the name (RandomState is frozen).

    A different prefix gives different weights. Gain 1 is half of He's variance: the sums of residual
    blocks then stay of order one at any depth, and every bias has an effect on the logits.
    """
    return {name: _generate(prefix + name, shape, gain) for name, shape in shapes.items()}


def _generate(name, shape, gain):
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if len(shape) > 1:
        values = random.standard_normal(shape) * np.sqrt(gain / np.prod(shape[1:]))
    elif name.endswith(("running_var", "weight")):
        values = random.uniform(0.5, 1.5, shape)
    else:
        values = random.standard_normal(shape) * 0.1
    return values.astype(np.float32)


def trained(shapes):
    """Names of the trained arrays, in order: all but the running statistics."""
    return [name for name in shapes if ".running_" not in name]


def place(name, dimensions):
    """Path in Flax's variables: ("params", ..., "kernel") or ("batch_stats", ..., "mean")."""
    *path, leaf = name.replace(".block0.", "_block0.").split(".")
    path = [{"convdim": "shortcut", "fc": "classifier"}.get(part, part) for part in path]
    if leaf.startswith("running_"):
        return "batch_stats", *path, leaf.removeprefix("running_")
    if leaf == "weight":
        leaf = "scale" if dimensions == 1 else "kernel"
    return "params", *path, leaf


def to_flax(state_dict):
    """Convert PyTorch's names and layouts to the variables of the module."""
    variables = {"params": {}, "batch_stats": {}}
    for name, value in state_dict.items():
        *path, leaf = place(name, value.ndim)
        node = variables
        for part in path:
            node = node.setdefault(part, {})
        # OIHW -> HWIO; (K, C) -> (C, K); vectors stay.
        node[leaf] = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
    return variables


def from_flax(params, shapes):
    """Convert parameters of the module to PyTorch's names and layouts."""
    values = {}
    for name in trained(shapes):
        _, *path = place(name, len(shapes[name]))
        value = params
        for part in path:
            value = value[part]
        value = np.asarray(value)
        values[name] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
    return values


def sketch(name, leaf, count=12):
    """Inner products of a gradient's leaf with fixed random directions, which the fixture stores.

    Those of a difference of norm d are distributed as N(0, d^2): their root mean square estimates d, and
    every entry of the leaf contributes.
    """
    random = np.random.RandomState(zlib.crc32(f"sketch {name}".encode()))
    return random.standard_normal((count, leaf.size)) @ np.ravel(leaf).astype(np.float64)
