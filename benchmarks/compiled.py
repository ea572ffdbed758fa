"""Analysis of a compiled program: its convolutions, operations and memory."""

import re
from typing import Any

__all__ = ["convolutions", "flops", "temporary_bytes"]

# The layout for which XLA:CPU has a fast kernel. A convolution in another layout, or one with a mirrored
# operand, is computed by a loop nest.
_FAST = "dim_labels=b01f_01io->b01f"


def convolutions(compiled: Any) -> tuple[list[str], list[str]]:
    """List the convolutions of a program compiled for CPU.

    Args:
      compiled: ``jax.jit(f).lower(...).compile()``, or the same of ``jax.pmap``.

    Returns:
      Lines of HLO: all convolutions, and those for which XLA:CPU has no fast kernel.
    """
    lines = [line.strip() for line in compiled.as_text().splitlines() if " convolution(" in line]
    slow = [line for line in lines if _FAST not in line or re.search("[lr]hs_reversal", line)]
    return lines, slow


def flops(compiled: Any) -> float:
    """Floating-point operations of one call on one device, by XLA's cost analysis."""
    return compiled.cost_analysis()["flops"]


def temporary_bytes(compiled: Any) -> int:
    """Peak memory of one call on one device, in addition to its arguments and results."""
    return compiled.memory_analysis().temp_size_in_bytes
