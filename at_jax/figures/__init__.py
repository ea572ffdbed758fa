"""Attention maps, input gradients and figures of runs. Command line: ``python -m at_jax.figures --help``.

Drawing needs matplotlib; importing this package does not.
"""

TYPE_CHECKING = False  # as in at_jax/__init__.py
if TYPE_CHECKING:
    from typing import Any

    from at_jax.figures.attention import attention_maps, gradient_maps

__all__ = ["attention_maps", "gradient_maps"]


def __getattr__(name: str) -> "Any":
    # Not imported above: ``python -m`` imports this file before its command can handle signals.
    if name in __all__:
        import importlib

        return getattr(importlib.import_module("at_jax.figures.attention"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
