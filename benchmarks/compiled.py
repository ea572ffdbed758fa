"""What a compiled program holds: its convolutions, its operations, its memory."""

import re

# What XLA:CPU has a fast kernel for; what stays in another layout or mirrored is run by a loop nest.
_FAST = "dim_labels=b01f_01io->b01f"


def convolutions(compiled) -> tuple[list[str], list[str]]:
    """All convolutions of a program compiled for CPU, and those that XLA:CPU runs unoptimised.

    Args:
      compiled: ``jax.jit(f).lower(...).compile()``, or of ``jax.pmap``.

    Returns:
      Lines of HLO.
    """
    lines = [line.strip() for line in compiled.as_text().splitlines() if " convolution(" in line]
    slow = [line for line in lines if _FAST not in line or re.search("[lr]hs_reversal", line)]
    return lines, slow


def flops(compiled) -> float:
    """Floating-point operations of one call on one device, by XLA's cost analysis."""
    return compiled.cost_analysis()["flops"]


def temporary_bytes(compiled) -> int:
    """Memory beside arguments and results, at its peak, on one device."""
    return compiled.memory_analysis().temp_size_in_bytes
