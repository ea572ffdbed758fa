"""Attention transfer (Zagoruyko & Komodakis, ICLR 2017) in JAX and Flax.

This package imports only jax, flax, optax and chex. Training, data and checkpoints are imported by name:
:mod:`at_jax.loop`, :mod:`at_jax.data`, :mod:`at_jax.checkpoint`.
"""

from at_jax import conv, errors, gradients, intermediates, losses, maps, models, terms
from at_jax.version import __version__

__all__ = [
    "__version__", "conv", "errors", "gradients", "intermediates", "losses", "maps", "models", "terms",
]  # fmt: skip
