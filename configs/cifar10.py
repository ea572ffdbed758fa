"""CIFAR-10 with the paper's recipe: table 1 of arXiv:1612.03928.

Choose a row of the table after the colon, for example student=wrn_16_1,teacher=wrn_16_2,method=at.
Prepare the data once: make data DATASET=cifar10
Command: at-jax train --config=cifar10:student=wrn_16_1,teacher=wrn_16_2,method=at
Hardware: a GPU or TPU for the 200 epochs. Measured on two CPU cores with CIFAR-10 (JPEG q75), 10,000
training images, 6 epochs, means of three seeds: test error 43.03 % with method=none, 39.04 % with method=at
and beta 100, teacher 37.94 % (results/cifar10_activation). Table: at-jax tables cifar10_activation.
"""

from at_jax.training.config import default_config
from at_jax.training.config_files import apply_parts


def get_config(parts: str | None = None):
    """Parts: student=, teacher=, method=."""
    config = default_config()
    config.data.source = "tfds"
    config.data.name = "cifar10"
    return apply_parts(config, parts)
