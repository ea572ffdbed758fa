"""Analysis of a program: its convolutions, operations and memory."""

import math
import re
from collections.abc import Iterator
from typing import Any

__all__ = ["convolutions", "flops", "multiply_adds", "peak_bytes", "temporary_bytes"]

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


def peak_bytes(compiled: Any) -> int:
    """Peak memory of one call on one device: arguments, results and temporaries."""
    memory = compiled.memory_analysis()
    separate = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + separate + memory.temp_size_in_bytes


def multiply_adds(jaxpr: Any) -> Iterator[int]:
    """Multiply-adds of each convolution and matrix product, in the order of the program.

    Counted on the traced program, as the textbook form of each operation needs them: a form with fewer
    products, such as Winograd's, counts the same. Elementwise work is not counted.

    Args:
      jaxpr: ``jax.make_jaxpr(f)(...).jaxpr``.
    """
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        first, *_ = shapes = [variable.aval.shape for variable in equation.invars]
        result = equation.outvars[0].aval.shape if equation.outvars else ()
        if name in ("at_conv", "conv_general_dilated"):
            yield math.prod(result) * math.prod(shapes[1][:-1])  # kernel (kh, kw, C / G, F)
        elif name == "at_conv_input_grad":
            yield math.prod(first) * math.prod(shapes[1][:-1])  # g (B, H', W', F)
        elif name == "at_conv_weight_grad":
            yield math.prod(shapes[1]) * math.prod(result[:-1])
        elif name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            yield math.prod(result) * math.prod(first[axis] for axis in contracted)
        repeats = equation.params["length"] if name == "scan" else 1
        for value in equation.params.values():
            for each in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(each, "jaxpr", each)
                if hasattr(inner, "eqns"):
                    yield from (repeats * count for count in multiply_adds(inner))
