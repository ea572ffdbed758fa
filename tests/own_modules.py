"""User-defined networks, valid and invalid."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import nnx

from at_jax import intermediates


class Untapped(nn.Module):
    """A network without a tap; its layers have paths."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), strides=(4, 4), name="stem")(images))
        x = nn.relu(nn.Conv(5, (3, 3), name="layer")(x))
        return nn.Dense(10)(jnp.mean(x, axis=(1, 2)))


class Tapped(nn.Module):
    """A network with a tap and without BatchNorm."""

    classes: int = 10
    features: int = 4

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(self.features, (3, 3), strides=(4, 4))(images))
        intermediates.tap(self, "only", x)
        return nn.Dense(self.classes)(jnp.mean(x, axis=(1, 2)))


class Unordered(nn.Module):
    """A network whose transfer points are not in alphabetical order."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), strides=(2, 2))(images))
        intermediates.tap(self, "zebra", x)
        x = nn.relu(nn.Conv(4, (3, 3), strides=(2, 2))(x))
        intermediates.tap(self, "ant", x)
        return nn.Dense(2)(jnp.mean(x, axis=(1, 2)))


class Normalized(nn.Module):
    """A network that normalizes each device's part of a batch separately."""

    @nn.compact
    def __call__(self, images, train):
        x = nn.BatchNorm(use_running_average=not train)(images)
        intermediates.tap(self, "only", x)
        return nn.Dense(10)(jnp.mean(x, axis=(1, 2)))


class Dropping(nn.Module):
    """A network with dropout; `always` drops in evaluation too, which is an error."""

    always: bool = False

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(8, (3, 3), strides=(4, 4))(images))
        intermediates.tap(self, "only", x)
        x = nn.Dropout(0.5, deterministic=not (train or self.always))(x)
        return nn.Dense(10)(jnp.mean(x, axis=(1, 2)))


class Counting(nn.Module):
    """A network with a counter, a constant and a running value, in collections of their own."""

    @nn.compact
    def __call__(self, images, *, train=False):
        calls = self.variable("counters", "calls", lambda: jnp.zeros((), jnp.int32))
        running = self.variable("running", "mean", lambda: jnp.zeros(()))
        scale = self.variable("constants", "scale", lambda: jnp.ones(()))
        if train:
            calls.value = calls.value + 1
            running.value = 0.9 * running.value + 0.1 * jnp.mean(images)
        x = nn.relu(nn.Conv(4, (3, 3), strides=(4, 4))(images)) * scale.value
        intermediates.tap(self, "only", x)
        return nn.Dense(10)(jnp.mean(x, axis=(1, 2)))


class Overflowing(nn.Module):
    """A network that divides by zero in a collection of its own; its logits stay finite."""

    @nn.compact
    def __call__(self, images, *, train=False):
        inverse = self.variable("running", "inverse", lambda: jnp.ones(()))
        if train:
            inverse.value = 1 / jnp.zeros(())
        return nn.Dense(10)(jnp.mean(images, axis=(1, 2)))


class Twice(nn.Module):
    """A network that calls one layer twice."""

    @nn.compact
    def __call__(self, images, *, train=False):
        layer = nn.Conv(images.shape[-1], (3, 3), name="layer")
        x = layer(layer(images))
        return nn.Dense(10)(jnp.mean(x, axis=(1, 2)))


class Tokens(nn.Module):
    """A network that taps tokens (B, N, C), as a transformer does."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Dense(4)(images.reshape(images.shape[0], -1, images.shape[-1]))
        intermediates.tap(self, "only", x)
        return nn.Dense(10)(jnp.mean(x, axis=1))


class Sowing(nn.Module):
    """A network that sows its activation in every call, `init` with mutable=True included."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), strides=(4, 4))(images))
        self.sow("intermediates", "only", x)
        return nn.Dense(10)(jnp.mean(x, axis=(1, 2)))


class Gated(nn.Module):
    """A network whose logits depend on an input besides the images, with one number per example."""

    @nn.compact
    def __call__(self, images, *, train=False, gate=None):
        logits = nn.Dense(10)(jnp.mean(images, axis=(1, 2)))
        return logits if gate is None else logits * gate[:, None]


class _Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        x = nn.relu(nn.Conv(x.shape[-1], (3, 3))(x))
        intermediates.tap(self, "only", x)
        return x, None


class Scanned(nn.Module):
    """A network whose tapped layers are stacked by nn.scan."""

    @nn.compact
    def __call__(self, images, *, train=False):
        layers = nn.scan(
            _Layer,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            length=2,
        )
        x, _ = layers(name="layers")(images, None)
        return nn.Dense(10)(jnp.mean(x, axis=(1, 2)))


class WithFeatures(nn.Module):
    """A network that returns its features with the logits."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Conv(4, (3, 3), strides=(4, 4))(images)
        return nn.Dense(10)(jnp.mean(x, axis=(1, 2))), x


class WithoutTrain(nn.Module):
    """A network without the argument train."""

    @nn.compact
    def __call__(self, images):
        return nn.Dense(10)(jnp.mean(images, axis=(1, 2)))


class NnxNet(nnx.Module):
    """An NNX network that sows an activation."""

    def __init__(self, features, *, rngs):
        self.conv = nnx.Conv(1, features, (3, 3), strides=(4, 4), rngs=rngs)
        self.classifier = nnx.Linear(features, 10, rngs=rngs)

    def __call__(self, images, *, train=False):
        x = nnx.relu(self.conv(images))
        self.sow(nnx.Intermediate, "only", x)
        return self.classifier(jnp.mean(x, axis=(1, 2)))


class NnxNormalized(nnx.Module):
    """An NNX network with dropout and batch normalization, which follow `train` or ignore it."""

    def __init__(self, *, follows, rngs):
        self.norm, self.dropout = nnx.BatchNorm(1, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.classifier = nnx.Linear(1, 10, rngs=rngs)
        self.follows = follows

    def __call__(self, images, *, train=False):
        x = self.norm(images, use_running_average=self.follows and not train)
        x = self.dropout(x, deterministic=not train)
        return self.classifier(jnp.mean(x, axis=(1, 2)))


class Typed(nn.Module):
    """A network with the usual fields, built by their names."""

    num_classes: int = 10
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Conv(4, (3, 3), strides=(4, 4), dtype=self.dtype)(images)
        intermediates.tap(self, "only", x)
        return nn.Dense(self.num_classes, dtype=self.dtype)(jnp.mean(x, axis=(1, 2)))


def make_typed(num_classes, dtype):
    """A factory with both arguments."""
    return Typed(num_classes, dtype)


def make_features(features):
    """A factory with an argument."""
    return Tapped(features=features)


def make_tapped():
    """A factory without arguments."""
    return Tapped(features=4)
