"""The defaults. ``at-jax train --help-config`` prints every key with its meaning and rule."""

from at_jax.training.config import default_config as get_config

__all__ = ["get_config"]
