"""The error of a network on a split, every example counted once."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from at_jax import data, metrics, parallel, processes, step


def evaluator(
    module: nn.Module,
    prepare: Callable[[jax.Array], jax.Array],
    split: data.Split,
    batch_size: int,
    devices: tuple[jax.Device, ...],
) -> Callable[[Any], float]:
    """Compile the evaluation of a network on a split.

    Args:
      module: the network.
      prepare: normalisation.
      split: every example counts exactly once.
      batch_size: images at a time; rounded up to a multiple of the devices.
      devices: to spread them over.

    Returns:
      A function from replicated variables to the error in percent.
    """
    mapped = parallel.map_eval(
        functools.partial(
            step.eval_step, module=module, prepare=prepare, axis_name=parallel.AXIS_NAME
        ),
        devices,
    )

    whole = -(-batch_size // len(devices)) * len(devices)

    def measure(variables: Any) -> float:
        parts = []
        for batch in data.eval_batches(split, whole, shard=processes.index_and_count()):
            parts.append(mapped(variables, parallel.shard(batch, parallel.local_count(devices))))
            if len(parts) > parallel.RUN_AHEAD:
                # Neither images nor collectives may pile up on the device.
                jax.block_until_ready(parts[-1 - parallel.RUN_AHEAD])
        return 100 * metrics.means(metrics.total(jax.device_get(parts)))["error"]

    return measure
