"""Memory that a run needs at least, estimated from shapes before anything is computed."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from at_jax.data import memory as host
from at_jax.distributed import devices, processes
from at_jax.errors import UserError
from at_jax.training.settings import Settings

__all__ = ["check", "stored_numbers"]

_LAYERS = ("conv_general_dilated", "at_conv", "dot_general")
# A convolution's result, and its normalization or activation, are kept for the backward pass. XLA's own
# count for WRN-16-1 is 2.2 results.
_KEPT = 2
# Parameters, their gradient and at least one state of the optimizer.
_COPIES = 3


def stored_numbers(jaxpr: Any) -> int:
    """Count the results of the convolutions and matrix products of a traced program.

    Those within ``jax.checkpoint`` are left out: the backward pass computes them again.
    """
    total = 0
    for equation in jaxpr.eqns:
        if "prevent_cse" in equation.params:  # jax.checkpoint, whose name differs between versions
            continue
        if equation.primitive.name in _LAYERS:
            total += math.prod(equation.outvars[0].aval.shape)
        repeats = equation.params["length"] if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += repeats * stored_numbers(inner)
    return total


def check(settings: Settings, image_shape: tuple[int, ...], student: Any, teacher: Any) -> None:
    """Raise if a run cannot fit into memory.

    Args:
      settings: of the run.
      image_shape: (H, W, C).
      student: its shapes, see ``tracing.Shapes``.
      teacher: of the teacher; None without one.

    Raises:
      UserError: with the estimate and the memory that is available.
    """
    sizes = [leaf.size for leaf in jax.tree.leaves(student.variables["params"])]
    copies = _COPIES + (settings.accumulation > 1)  # the sum of the gradients
    parameters = copies * sum(sizes)
    if teacher is not None:
        parameters += sum(leaf.size for leaf in jax.tree.leaves(teacher.variables))
    itemsize = jnp.dtype(settings.dtype).itemsize
    batch = max(settings.batch_size // settings.accumulation, 1)
    activations = _KEPT * batch * (student.stored + math.prod(image_shape)) * itemsize
    needed = 4 * parameters + activations
    available = (devices.memory_limit() or host.available() or 0) * processes.index_and_count()[1]
    if available and needed > available:
        raise UserError(
            f"student={settings.student!r} with batch_size={settings.batch_size} and accumulation="
            f"{settings.accumulation} on images of {'x'.join(map(str, image_shape))} needs at least "
            f"{_gib(needed)} ({_gib(4 * parameters)} for parameters, {_gib(activations)} for activations), "
            f"got {_gib(available)} of memory: choose a smaller network such as wrn_16_1, a smaller "
            "batch_size or data.image_size, or more accumulation"
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
