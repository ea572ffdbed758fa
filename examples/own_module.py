"""A user-defined Flax module as the student, with dropout, checkpoints, resume and metrics.

    python -m examples.own_module

Any linen module that takes ``(images, train=...)`` and returns logits works. Its activations are taps, or
submodules named by their path: here "body" learns from the last group of a wide ResNet.
"""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax import checkpoint, loop
from at_jax.conv import conv_general_dilated
from at_jax.training import config_files


class Body(nn.Module):
    """Two strided convolutions."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Extract features: (B, H, W, C) -> (B, H/4, W/4, 32)."""
        for features in (16, 32):
            x = nn.Conv(features, (3, 3), strides=2, conv_general_dilated=conv_general_dilated)(x)
            x = nn.relu(x)
        return x


class SmallNet(nn.Module):
    """A body, dropout and a classifier."""

    num_classes: int = 10
    dropout: float = 0.1

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Classify: (B, H, W, C) -> (B, K)."""
        x = jnp.mean(Body(name="body")(images), axis=(1, 2))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes)(x)


def main(workdir: str = "runs/own_module", **changes) -> dict:
    """Train the module from a WRN teacher; ``changes`` are config keys."""
    config = config_files.load("digits", "teacher=wrn_10_1,method=at")
    config.transfer.points = ("body<-group3",)
    config.optimizer.learning_rate = 0.02
    config.update_from_flattened_dict(changes)
    result = loop.train_and_evaluate(config, workdir, student=SmallNet())

    # From the command line: --module=examples.own_module:SmallNet
    module, variables = checkpoint.load(workdir, module=SmallNet())
    logits = module.apply(variables, jnp.zeros((1, 16, 16, 1)))
    print(f"loaded: logits of shape {logits.shape}", file=sys.stderr)
    return result


if __name__ == "__main__":
    main()
