"""Attention transfer (Zagoruyko & Komodakis, ICLR 2017) in JAX and Flax.

The modules below are imported when they are first used, and need only jax, flax, optax and chex. Training,
data and checkpoints are imported by name: :mod:`at_jax.loop`, :mod:`at_jax.data`, :mod:`at_jax.checkpoint`.
"""

from at_jax.version import __version__

TYPE_CHECKING = (
    False  # without typing, which takes longer to import than a command to handle signals
)
if TYPE_CHECKING:
    from typing import Any

    from at_jax import conv, errors, gradients, intermediates, losses, maps, models, terms

__all__ = [
    "__version__", "conv", "errors", "gradients", "intermediates", "losses", "maps", "models", "terms",
]  # fmt: skip


def __getattr__(name: str) -> "Any":
    # Not imported above: a command line must be able to prepare its process before jax is imported.
    if name in __all__:
        import importlib

        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
