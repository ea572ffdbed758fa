"""CIFAR-100 with the recipe of CIFAR-10.

Prepare the data once: make data DATASET=cifar100
Command: at-jax train --config=cifar100:student=wrn_16_2,teacher=wrn_40_2,method=at+kd
Not measured yet.
"""

from at_jax.training.config import default_config
from at_jax.training.config_files import apply_parts


def get_config(parts: str | None = None):
    """Parts: student=, teacher=, method=."""
    config = default_config()
    config.data.source = "tfds"
    config.data.name = "cifar100"
    return apply_parts(config, parts)
