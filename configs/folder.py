"""Your own images: DIR/{train,test}/<class>/, with JPEG, PNG, WebP, BMP and GIF files at any depth.

Without train and test, DIR/<class>/ is split by data.test_fraction. The recipe is that of CIFAR-10. For
photographs, use --config.data.image_size=224 --config.data.augmentation=random_resized_crop, with
student=resnet_18,teacher=resnet_34.
Command: at-jax train --config=folder:data=DIR,student=wrn_16_1,teacher=wrn_16_2
"""

from at_jax.training.config import default_config
from at_jax.training.config_files import apply_parts


def get_config(parts: str | None = None):
    """Parts: data=DIR, student=, teacher=, method=."""
    config = default_config()
    config.data.source = "folder"
    return apply_parts(config, parts, {"data": "data.data_dir"})
