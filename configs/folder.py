"""Your own images: DIR/{train,test}/<class>/*.{jpg,jpeg,png}.

The recipe is that of CIFAR-10. For photographs set data.image_size, for example
--config.data.image_size=224 with student=resnet_18,teacher=resnet_34.
Command: python train.py --config=configs/folder.py:data=DIR,student=wrn_16_1,teacher=wrn_16_2
"""

from at_jax.training.config import default_config
from configs.parts import apply_parts


def get_config(parts: str | None = None):
    """Parts: data=DIR, student=, teacher=, method=."""
    config = default_config()
    config.data.source = "folder"
    return apply_parts(config, parts, {"data": "data.data_dir"})
