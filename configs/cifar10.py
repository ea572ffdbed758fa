"""CIFAR-10 with the paper's recipe: table 1 of arXiv:1612.03928.

Choose a row of the table after the colon, for example student=wrn_16_1,teacher=wrn_16_2,method=at.
Prepare the data once: make data DATASET=cifar10
Command: at-jax train --config=cifar10:student=wrn_16_1,teacher=wrn_16_2,method=at
Hardware: a GPU or TPU for the 200 epochs. Measured on one GPU with CIFAR-10 (JPEG q75) and one seed: test
error 12.55 % with method=none, 11.65 % with method=at, 10.77 % with method=at+kd, teacher 9.80 %
(results/cifar10_activation_200_epochs). Table: at-jax tables cifar10_activation.
"""

from at_jax.training.config import default_config
from at_jax.training.config_files import apply_parts


def get_config(parts: str | None = None):
    """Parts: student=, teacher=, method=."""
    config = default_config()
    config.data.source = "tfds"
    config.data.name = "cifar10"
    return apply_parts(config, parts)
