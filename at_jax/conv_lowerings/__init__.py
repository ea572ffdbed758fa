"""Lowerings of the three operations of a convolution to operations that XLA has fast kernels for.

:mod:`at_jax.conv` makes primitives of them: those of :mod:`~at_jax.conv_lowerings.cpu` for CPU, those of
:mod:`~at_jax.conv_lowerings.as_lax` for GPU and TPU. On an H200 those of ``as_lax`` are up to 19 times as
fast as those of ``cpu`` (results/gpu). Every choice between two forms depends on shapes only.
"""

from at_jax.conv_lowerings import as_lax, cpu
from at_jax.conv_lowerings.window import (
    DIMENSIONS,
    Window,
    make_window,
    mirrored_kernel,
    transposed_window,
)

__all__ = [
    "DIMENSIONS", "Window", "as_lax", "cpu", "make_window", "mirrored_kernel", "transposed_window",
]  # fmt: skip
