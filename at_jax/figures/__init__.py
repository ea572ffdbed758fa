"""Attention maps, input gradients and figures of runs. Command line: ``python -m at_jax.figures --help``.

Drawing needs matplotlib; importing this package does not.
"""

from at_jax.figures.attention import attention_maps, gradient_maps

__all__ = ["attention_maps", "gradient_maps"]
