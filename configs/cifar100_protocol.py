"""CIFAR-100 with the common protocol of distillation papers. Table cifar100_protocol.

The settings are those of RepDistiller and mdistiller for networks other than MobileNetV2 and ShuffleNet.
Differences from them are listed on the results page of the documentation.

Prepare the data once: make data DATASET=cifar100
Command: at-jax train --config=cifar100_protocol:student=cifar_resnet_20,teacher=cifar_resnet_56,method=at
Hardware: a GPU. Not measured yet.
"""

from at_jax.training.config import default_config
from at_jax.training.config_files import apply_parts


def get_config(parts: str | None = None):
    """Parts: student=, teacher=, method=."""
    config = default_config()
    config.student = "wrn_16_2"
    config.teacher.model = "wrn_40_2"
    config.epochs = 240
    config.batch_size = 64
    data = config.data
    data.source, data.name = "tfds", "cifar100"
    data.drop_last = False  # 50,000 images are 781 batches of 64 and one of 16
    data.pad_mode = "zero"
    data.mean = tuple(255 * mean for mean in (0.5071, 0.4867, 0.4408))
    data.std = tuple(255 * std for std in (0.2675, 0.2565, 0.2761))
    optimizer = config.optimizer
    optimizer.learning_rate = 0.05
    optimizer.drop_epochs = (150, 180, 210)
    optimizer.drop_factor = 0.1
    optimizer.momentum = 0.9
    optimizer.weight_decay = 5e-4
    config.kd.alpha, config.kd.temperature = 0.9, 4.0
    config.at.beta, config.at.p, config.at.align = 1000.0, 2.0, "pool"
    return apply_parts(config, parts)
