"""Attention transfer (Zagoruyko & Komodakis, ICLR 2017) in JAX and Flax.

The building blocks are here and need jax, flax, optax and chex alone. Training, data and checkpoints
(:mod:`at_jax.loop`, :mod:`at_jax.data`, :mod:`at_jax.checkpoint`) are imported by name.
"""

from at_jax import conv, gradients, intermediates, losses, maps, models
from at_jax.version import __version__

__all__ = ["__version__", "conv", "gradients", "intermediates", "losses", "maps", "models"]
