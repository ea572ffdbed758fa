r"""MIT Indoor 67: fine-tuning of a ResNet-18 with attention transfer from a ResNet-34 (arXiv:1612.03928).

Paper, error: student 28.2 %, distillation (KD) 28.1 %, attention transfer 27.1 %, teacher 26 % (quoted, not
measured here). Both networks start from ImageNet weights; the first stage is frozen. Attention is
transferred at the last two stages, combined with distillation.
Data: the image archive contains Images/<class>/; the lists TrainImages.txt (80 images per class) and
TestImages.txt (20) are published with it. To make DIR/{train,test}/<class>/ from them:
  for part in train:Train test:Test; do tr -d '\r' < ${part#*:}Images.txt | while read -r path; do
    mkdir -p "DIR/${part%:*}/${path%/*}" && cp "Images/$path" "DIR/${part%:*}/$path"; done; done
Commands, the teacher first:
  at-jax train --config=scenes:data=DIR,student=resnet_34,method=none,init=resnet34.safetensors \
    --workdir runs/scenes_teacher
  at-jax train --config=scenes:data=DIR,init=resnet18.safetensors \
    --config.teacher.checkpoint=runs/scenes_teacher
Hardware: one GPU. The schedule is ours; use --config.data.validation_examples=536 to choose another.
"""

from at_jax.training.config import default_config
from at_jax.training.config_files import apply_parts


def get_config(parts: str | None = None):
    """Parts: data=DIR, student=, teacher=, method=, init=FILE (ImageNet weights of the student)."""
    config = default_config()
    config.student, config.teacher.model, config.method = "resnet_18", "resnet_34", "at+kd"
    config.init.freeze = ("conv1", "bn1", "stage1")
    config.data.source = "folder"
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
    return apply_parts(config, parts, {"data": "data.data_dir", "init": "init.weights"})
