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
    config.teacher.model = "wrn_16_1"
    config.data.source = "digits"
    config.data.image_size = 16
    config.data.train_examples = 200
    # A mirrored 2 is no digit; two pixels are as far as a digit can move.
    config.data.pad = 2
    config.data.mirror = False
    config.batch_size = 50
    config.epochs = 60
    config.optimizer.drop_epochs = (30, 45)
    config.teacher.epochs = 12
    config.teacher.drop_epochs = (6, 9)
    # 1000 is meant for CIFAR; see the README for how this was chosen.
    config.at.beta = 25.0
    config.runtime.checkpoint_every = 10
    return apply_parts(config, parts)
