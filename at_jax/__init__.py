"""Attention transfer in JAX and Flax."""

from at_jax.version import __version__

__all__ = ["__version__"]
