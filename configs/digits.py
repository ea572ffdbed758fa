"""scikit-learn's handwritten digits, 16x16 pixels. The default config; it needs no download.

The teacher is trained on all 1,442 training images, the student on 200 labeled ones.

Command: at-jax train --config=digits
Measured on a 2-core CPU, 2026-11-26: test error 1.13 % with method=gradient_at+kd, 3.66 % with at, 5.45 %
with none, means of seeds 0 to 2; teacher 0.85 % (results/digits). For searched weights
and temperatures with five seeds, see results/digits_searched.
"""

from at_jax.training.config import default_config
from at_jax.training.config_files import apply_parts


def get_config(parts: str | None = None):
    """Parts: student=, teacher=, method=."""
    config = default_config()
    config.student = "wrn_10_1"
    config.teacher.model = "wrn_16_2"
    config.data.source = "digits"
    config.data.image_size = 16
    config.data.train_examples = 200
    # No augmentation: a mirrored 2 is not a digit. Crops: results/digits_validation.md.
    config.data.pad = 0
    config.data.mirror = False
    config.batch_size = 50
    config.epochs = 100
    config.optimizer.drop_epochs = (50, 75)
    config.teacher.epochs = 12
    config.teacher.drop_epochs = (6, 9)
    # Chosen on held-out training images (results/digits_validation.md). The teacher has fitted its images,
    # so its input gradient vanishes at temperature 1.
    config.method = "gradient_at+kd"
    config.gradient_at.temperature = 8.0
    config.gradient_at.beta = 10.0
    config.jacobian.beta = 10.0
    config.at.beta = 50.0  # 1000 is for CIFAR
    config.runtime.checkpoint_every = 10
    if "method=" not in (parts or ""):
        # A first run shows the benefit of transfer.
        config.compare = ("none", "at")
    return apply_parts(config, parts)
