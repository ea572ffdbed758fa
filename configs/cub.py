"""CUB-200-2011: fine-tuning of a ResNet-18 with attention transfer from a ResNet-34 (arXiv:1612.03928).

Paper, error: student 28.5 %, distillation (KD) 27 %, attention transfer 27 %, teacher 26.5 % (quoted, not
measured here). Birds are cropped by their bounding boxes. Both networks start from ImageNet weights; the
first stage is frozen. Attention is transferred at the last two stages, combined with distillation.
Prepare the data once: make data DATASET=caltech_birds2011
Commands, the teacher first:
  at-jax train --config=cub:student=resnet_34,method=none,init=resnet34.pth --workdir runs/cub_teacher
  at-jax train --config=cub:init=resnet18.pth --config.teacher.checkpoint=runs/cub_teacher
Hardware: one GPU. The schedule is ours; use --config.data.validation_examples=600 to choose another.
"""

from at_jax.training.config import default_config
from at_jax.training.config_files import apply_parts


def get_config(parts: str | None = None):
    """Parts: student=, teacher=, method=, init=FILE (ImageNet weights of the student)."""
    config = default_config()
    config.student, config.teacher.model, config.method = "resnet_18", "resnet_34", "at+kd"
    config.init.freeze = ("conv1", "bn1", "stage1")
    config.data.source = "tfds"
    config.data.name = "caltech_birds2011"
    config.data.crop = "bbox"
    config.data.image_size = 224
    config.data.augmentation = "random_resized_crop"
    # ImageNet normalization.
    config.data.mean = (123.675, 116.28, 103.53)
    config.data.std = (58.395, 57.12, 57.375)
    config.epochs = 60
    config.batch_size = 64
    config.optimizer.learning_rate = 0.01
    config.optimizer.drop_epochs = (30, 45)
    config.optimizer.drop_factor = 0.1
    config.transfer.points = ("stage3<-stage3", "stage4<-stage4")
    return apply_parts(config, parts, {"init": "init.weights"})
