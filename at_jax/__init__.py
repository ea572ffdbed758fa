"""Attention transfer (Zagoruyko & Komodakis, ICLR 2017) in JAX and Flax.

Modules are imported on first use. Those below need only jax, flax, optax and chex; training
(:mod:`at_jax.loop`), :mod:`at_jax.data`, :mod:`at_jax.checkpoint` and :mod:`at_jax.figures` need extras.
"""

from at_jax.version import __version__

# Defined here: importing typing takes longer than a command needs to handle signals.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from at_jax import (
        agreement,
        conv,
        errors,
        gradients,
        intermediates,
        losses,
        maps,
        models,
        objective,
        options,
        terms,
    )

__all__ = [
    "__version__", "agreement", "conv", "errors", "gradients", "intermediates", "losses", "maps", "models",
    "objective", "options", "terms",
]  # fmt: skip


# Not in __all__: `from at_jax import *` works without the extras.
_WITH_EXTRAS = ("checkpoint", "data", "figures", "loop", "training")


def __getattr__(name: str) -> "Any":
    # Not imported above: a command line must be able to prepare its process before jax is imported.
    if name in __all__ or name in _WITH_EXTRAS:
        import importlib

        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_WITH_EXTRAS})
