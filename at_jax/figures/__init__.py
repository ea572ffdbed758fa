"""Pictures of what networks look at and of how runs went. ``python -m at_jax.figures --help``.

Importing this needs no matplotlib; drawing does.
"""

from at_jax.figures.attention import attention_maps, gradient_maps

__all__ = ["attention_maps", "gradient_maps"]
