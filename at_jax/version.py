"""Version of the package, in a separate module so that packaging reads it without importing jax."""

__all__ = ["__version__"]

__version__ = "0.1.0"
