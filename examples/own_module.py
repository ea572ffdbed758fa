"""A Flax module of your own as student, in the full trainer: checkpoints, resume, metrics and all.

    python -m examples.own_module

Any linen module will do that takes `(images, train=...)` and taps its activations. Here its single
tap learns from the last group of a wide ResNet of another depth, width and map size.
"""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax import checkpoint, loop
from at_jax.conv import conv_general_dilated
from at_jax.intermediates import tap
from configs import digits


class TwoLayers(nn.Module):
    """Two strided convolutions and a classifier."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Classify: (B, H, W, C) -> (B, K)."""
        x = images
        for features in (16, 32):
            x = nn.Conv(features, (3, 3), strides=2, conv_general_dilated=conv_general_dilated)(x)
            x = nn.relu(x)
        tap(self, "features", x)
        return nn.Dense(self.num_classes)(jnp.mean(x, axis=(1, 2)))


def main(workdir: str = "runs/own_module", **changes) -> dict:
    """Train the module from a WRN teacher; `changes` are config keys with their values."""
    config = digits.get_config("teacher=wrn_10_1,method=at")
    config.transfer.points = ("features<-group3",)
    config.optimizer.learning_rate = 0.02
    config.update_from_flattened_dict(changes)
    result = loop.train_and_evaluate(config, workdir, student=TwoLayers())

    module, variables = checkpoint.load(workdir, module=TwoLayers())
    logits = module.apply(variables, jnp.zeros((1, 16, 16, 1)))
    print(f"opened again: logits of shape {logits.shape}", file=sys.stderr)
    return result


if __name__ == "__main__":
    main()
