"""CIFAR-10 with few labels, where transfer helps most. Table cifar10_few_labels.

The teacher is trained on all 50,000 images, the student on a subset. An epoch of the student still has
50,000 images, so the number of steps is the same for every number of labels.

Prepare the data once: make data DATASET=cifar10
Command: at-jax train --config=cifar10_few_labels:method=gradient_at+kd --config.data.train_examples=500
Hardware: a GPU. Measured on one H100 and one H200, CIFAR-10 (JPEG q75), 500 labels: mean test error 54.11 %
with method=none, 35.31 % with at (three seeds each), 21.20 % with gradient_at+kd (two seeds), teacher 14.08
% (results/cifar10_few_labels).
"""

from at_jax.training.config import default_config
from at_jax.training.config_files import apply_parts


def get_config(parts: str | None = None):
    """Parts: student=, teacher=, method=."""
    config = default_config()
    config.student = "wrn_16_1"
    config.teacher.model = "wrn_16_2"
    config.method = "gradient_at+kd"
    config.data.source = "tfds"
    config.data.name = "cifar10"
    config.data.train_examples = 500
    config.data.epoch_examples = 50000
    # 15 epochs, with the drops of the paper's schedule in proportion.
    config.epochs = 15
    config.optimizer.drop_epochs = (5, 9, 12)
    # The teacher has fitted its images, so its input gradient vanishes at temperature 1.
    config.gradient_at.temperature = 8.0
    config.gradient_at.beta = 10.0
    config.jacobian.beta = 10.0
    return apply_parts(config, parts)
