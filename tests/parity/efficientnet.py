"""State dict of EfficientNet-Lite0 with the names of the package efficientnet_lite_pytorch. NumPy only.

PyTorch (make_efficientnet.py) and the tests generate the same weights and images here, so the fixture
stores outputs only.
"""

import numpy as np
from parity import networks

SEED = 20190528
# Name in the fixture: images, pixels. From 75 pixels the strides meet odd and even numbers of pixels.
SIZES = {"small": (2, 75), "full": (1, 224)}
# Blocks in order: channels before, after, kernel. All but the first expand by 6.
BLOCKS = (
    (32, 16, 3),
    *((16, 24, 3), (24, 24, 3)),
    *((24, 40, 5), (40, 40, 5)),
    *((40, 80, 3), (80, 80, 3), (80, 80, 3)),
    *((80, 112, 5), (112, 112, 5), (112, 112, 5)),
    *((112, 192, 5), (192, 192, 5), (192, 192, 5), (192, 192, 5)),
    (192, 320, 3),
)
# Index of the last block of each stage.
STAGE_ENDS = (0, 2, 4, 10, 15)


def shapes(classes):
    """Names and shapes in the order of the state dict."""
    found = {"_conv_stem.weight": (32, 3, 3, 3)} | networks.norm_shapes("_bn0", 32)
    for index, (before, after, size) in enumerate(BLOCKS):
        block, hidden = f"_blocks.{index}", before * (1 if index == 0 else 6)
        if index > 0:
            found[f"{block}._expand_conv.weight"] = (hidden, before, 1, 1)
            found |= networks.norm_shapes(f"{block}._bn0", hidden)
        found[f"{block}._depthwise_conv.weight"] = (hidden, 1, size, size)
        found |= networks.norm_shapes(f"{block}._bn1", hidden)
        found[f"{block}._project_conv.weight"] = (after, hidden, 1, 1)
        found |= networks.norm_shapes(f"{block}._bn2", after)
    found["_conv_head.weight"] = (1280, 320, 1, 1)
    return (
        found
        | networks.norm_shapes("_bn1", 1280)
        | {"_fc.weight": (classes, 1280), "_fc.bias": (classes,)}
    )


def state_dict(classes):
    """Random weights and statistics, float32."""
    return networks.generated(shapes(classes), f"efficientnet {SEED} ", gain=2)


def images(name):
    """Normalized images, float32 (B, H, W, 3)."""
    count, size = SIZES[name]
    random = np.random.default_rng([SEED, size])
    return random.standard_normal((count, size, size, 3)).astype(np.float32)
