"""Networks as users bring them, good and bad."""

import flax.linen as nn
import jax.numpy as jnp

from at_jax import intermediates


class Untapped(nn.Module):
    """Somebody's network without a tap."""

    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(10)(images.reshape(images.shape[0], -1))


class Tapped(nn.Module):
    """Somebody's network with a tap and without batch normalisation."""

    classes: int = 10
    features: int = 4

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(self.features, (3, 3), strides=(4, 4))(images))
        intermediates.tap(self, "only", x)
        return nn.Dense(self.classes)(jnp.mean(x, axis=(1, 2)))


class Normalised(nn.Module):
    """Somebody's network that normalises each device's part of a batch alone."""

    @nn.compact
    def __call__(self, images, train):
        x = nn.BatchNorm(use_running_average=not train)(images)
        intermediates.tap(self, "only", x)
        return nn.Dense(10)(jnp.mean(x, axis=(1, 2)))


class Dropping(nn.Module):
    """Somebody's network that asks for random numbers."""

    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(10)(
            nn.Dropout(0.5, deterministic=False)(images.reshape(images.shape[0], -1))
        )
