"""scikit-learn's handwritten digits, 16x16 pixels: the default, no download.

The case for attention transfer at its smallest: the teacher has seen all 1,442 training images, the
student is given labels for 200 of them.

Command: python train.py --config=configs/digits.py:method=at
"""

from configs import base
from configs.parts import apply_parts


def get_config(parts: str | None = None):
    """Parts: student=, teacher=, method=."""
    config = base.get_config()
    config.student = "wrn_10_1"
    config.teacher.model = "wrn_16_2"
    config.data.source = "digits"
    config.data.image_size = 16
    config.data.train_examples = 200
    # No augmentation: a mirrored 2 is no digit, and shifted ones would make labels less scarce.
    config.data.pad = 0
    config.data.mirror = False
    config.batch_size = 50
    config.epochs = 100
    config.optimizer.drop_epochs = (50, 75)
    config.teacher.epochs = 12
    config.teacher.drop_epochs = (6, 9)
    # 1000 is meant for CIFAR; this was chosen on a validation part (benchmarks/few_labels.py).
    config.at.beta = 50.0
    config.runtime.checkpoint_every = 10
    return apply_parts(config, parts)
