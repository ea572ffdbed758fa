"""ImageNet: attention transfer from ResNet-34 to ResNet-18 (arXiv:1612.03928).

Paper, top-1 / top-5 error: ResNet-18 30.4 / 10.8 %, with attention transfer 29.3 / 10.0 %, teacher
ResNet-34 26.1 / 8.3 % (quoted, not measured here).
Prepare the data once, with the archives of ILSVRC2012 in DIR: make data DATASET=imagenet2012 MANUAL_DIR=DIR
Command: at-jax train --config=imagenet:weights=resnet34.safetensors
Hardware: GPUs or a TPU for 100 epochs of 1.28 million photographs, and enough CPU cores to decode them.
The teacher is a ResNet-34 of torchvision or timm; without weights=FILE, a teacher is trained first.
Transfer starts at epoch 60, as in the paper; --config.transfer.begin_epoch=0 starts it immediately.
"""

from at_jax.training.config import default_config
from at_jax.training.config_files import apply_parts


def get_config(parts: str | None = None):
    """Parts: student=, teacher=, method=, weights=FILE (of the teacher)."""
    config = default_config()
    config.student, config.teacher.model = "resnet_18", "resnet_34"
    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.image_size = 224  # evaluated on the center of images whose shorter side is 256
    config.data.augmentation = "random_resized_crop"
    # The normalization of the teacher's training.
    config.data.mean = (123.675, 116.28, 103.53)
    config.data.std = (58.395, 57.12, 57.375)
    config.epochs = 100
    config.batch_size = 256
    config.optimizer.drop_epochs = (30, 60, 90)
    config.optimizer.drop_factor = 0.1
    config.optimizer.weight_decay = 1e-4
    config.transfer.begin_epoch = 60
    return apply_parts(config, parts, {"weights": "teacher.weights"})
