"""Lowerings of the three operations of a convolution to operations that XLA has fast kernels for.

:mod:`at_jax.conv` defines primitives with them: those of :mod:`~at_jax.conv_lowerings.cpu` on CPU, those
of :mod:`~at_jax.conv_lowerings.as_lax` on GPU and TPU, which are up to 20 times as fast there (measured on
an H200, results/gpu). The choice between two forms depends only on shapes.
"""

from at_jax.conv_lowerings import as_lax, cpu, shardings
from at_jax.conv_lowerings.vmapped import batched
from at_jax.conv_lowerings.window import (
    DIMENSIONS,
    Window,
    make_window,
    mirrored_kernel,
    positive_pair,
    transposed_window,
)

__all__ = [
    "DIMENSIONS", "Window", "as_lax", "batched", "cpu", "make_window", "mirrored_kernel",
    "positive_pair", "shardings", "transposed_window",
]  # fmt: skip
