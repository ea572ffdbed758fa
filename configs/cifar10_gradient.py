"""Gradient-based attention transfer on CIFAR-10: the gradient table of arXiv:1612.03928.

NIN-thin from NIN-wide, both without batch normalisation, mirroring as the only augmentation.
Test error in percent by the paper (quoted from memory: unverified), by method:
none 13.5, min_l2 12.5, gradient_at 12.1, kd 12.1, flip_symmetry 11.8, at 11.2.

Prepare the data once: make data DATASET=cifar10
Command: python train.py --config=configs/cifar10_gradient.py:method=gradient_at
Hardware: an accelerator for the 200 epochs. The paper states no weight for the three terms on input
gradients; how those below were found on a held-out part of the training images, and what was measured on
two CPU cores, is in results/cifar10_gradient.md.
"""

from configs import base
from configs.parts import apply_parts


def get_config(parts: str | None = None):
    """Parts: student=, teacher=, method=."""
    config = base.get_config()
    config.student = "nin_thin"
    config.teacher.model = "nin_wide"
    config.method = "gradient_at"
    config.data.source = "tfds"
    config.data.name = "cifar10"
    config.data.pad = 0
    # At 0.1 a NIN without batch normalisation dies: the loss stays at log 10.
    config.optimizer.learning_rate = 0.01
    # Chosen on held-out training images at a short schedule: results/cifar10_gradient.md.
    config.gradient_at.beta = 0.3
    config.flip_symmetry.beta = 0.3
    config.min_l2.beta = 0.3
    return apply_parts(config, parts)
