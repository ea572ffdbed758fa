"""Data parallelism over devices: device selection, batch sharding and mapped steps.

This is the only file that uses ``pmap``. It maps a step over the devices of all processes. Parameters are
replicated. A batch is split among the processes first, in their order, and then among the devices of each
process. Since jax 0.8 ``pmap`` is ``jit`` of ``shard_map``; on one device it costs as much as ``jit``.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from at_jax.distributed import compilation, processes
from at_jax.errors import UserError, listed

__all__ = [
    "AXIS_NAME", "MAX_STEPS_PER_DISPATCH", "RUN_AHEAD", "check_batch_size", "default_steps_per_dispatch",
    "describe", "idle", "local_count", "map_eval", "map_train", "memory_limit", "replicate", "select",
    "shard",
]  # fmt: skip

AXIS_NAME = "batch"
# Dispatches in flight besides the one being computed. Two hide the host's work and keep Ctrl-C responsive.
RUN_AHEAD = 2
# At most 50 steps are queued: with more than about 100 queued collectives on virtual CPU devices the
# process aborts (jax 0.10).
MAX_STEPS_PER_DISPATCH = 50 // (RUN_AHEAD + 1)


def select(count: int, batch_size: int, accumulation: int = 1) -> tuple[jax.Device, ...]:
    """Select the devices of a run, from all processes and in the order of the processes.

    Args:
      count: devices per process; 0 selects the largest number that divides the batch evenly.
      batch_size: images per update, over all processes.
      accumulation: micro-batches per update on each device.

    Returns:
      ``count`` devices of each process; those of process 0 come first.

    Raises:
      UserError: if a process has fewer devices, the processes have different numbers of devices, or the
        batch size is not a multiple of devices times micro-batches.

    >>> len(select(1, batch_size=8))
    1
    """
    _, hosts = processes.index_and_count()
    # Grouped by process, because the batch is split in that order.
    found = [[d for d in jax.devices() if d.process_index == host] for host in range(hosts)]
    available = len(found[0])
    if any(len(of_host) != available for of_host in found):
        raise UserError(
            "every process must have the same number of devices, got "
            f"{listed(len(of_host) for of_host in found)}: use machines of one type, or make the same "
            "devices visible to each process (CUDA_VISIBLE_DEVICES)"
        )
    if not 0 <= count <= available:
        raise UserError(
            f"runtime.devices must be 0 (automatic) to {available} on this machine, got {count}: set it "
            "within that range; on CPU, XLA_FLAGS=--xla_force_host_platform_device_count=N adds devices"
        )
    if not count:
        fitting = [
            n for n in range(1, available + 1) if batch_size % (n * hosts * accumulation) == 0
        ]
        count = max(fitting, default=1)
    selected = tuple(device for of_host in found for device in of_host[:count])
    check_batch_size(batch_size, selected, accumulation)
    return selected


def idle(devices: tuple[jax.Device, ...]) -> int:
    """Number of devices of this process that a run does not use."""
    return len(jax.local_devices()) - local_count(devices)


def local_count(devices: tuple[jax.Device, ...]) -> int:
    """Number of the selected devices that belong to this process."""
    return len(devices) // _process_count(devices)


def _process_count(devices: tuple[jax.Device, ...]) -> int:
    return len({device.process_index for device in devices})


def describe(devices: tuple[jax.Device, ...]) -> str:
    """Summarize devices as text, for example ``"4 x NVIDIA H100 in 2 processes"``."""
    hosts = _process_count(devices)
    suffix = f" in {hosts} processes" if hosts > 1 else ""
    return f"{len(devices)} x {devices[0].device_kind}{suffix}"


def memory_limit() -> int | None:
    """Bytes of memory of this process's accelerators together; None on CPU, or where it is unknown."""
    limits = [(each.memory_stats() or {}).get("bytes_limit", 0) for each in jax.local_devices()]
    return sum(limits) if all(limits) else None


def default_steps_per_dispatch(devices: tuple[jax.Device, ...]) -> int:
    """Number of training steps per compiled call: 1 on CPU, 10 on accelerators.

    On an accelerator, launching a step takes the host longer than preparing its data.
    """
    return 1 if devices[0].platform == "cpu" else 10


def check_batch_size(
    batch_size: int, devices: tuple[jax.Device, ...], accumulation: int = 1
) -> None:
    """Raise unless the batch splits into equal micro-batches on all devices.

    Args:
      batch_size: images per update, over all processes.
      devices: all devices of the run.
      accumulation: micro-batches per update on each device.

    Raises:
      UserError: naming the factors and the nearest batch sizes that fit.
    """
    parts = len(devices) * accumulation
    if batch_size >= parts and batch_size % parts == 0:
        return
    lower = batch_size // parts * parts
    fitting = " or ".join(str(n) for n in (lower, lower + parts) if n > 0)
    names, factors = "devices", f"{local_count(devices)}"
    if (hosts := _process_count(devices)) > 1:
        names, factors = f"{names} x processes", f"{factors} x {hosts}"
    raise UserError(
        f"batch_size must be a multiple of {names} x accumulation = {factors} x {accumulation} "
        f"= {parts}, got {batch_size}: use {fitting}, or fewer devices (runtime.devices)"
    )


def shard(batch: Mapping[str, np.ndarray], count: int, axis: int = 0) -> dict[str, np.ndarray]:
    """Split the batch axis into equal shards and move the shard axis to the front.

    Args:
      batch: arrays with the examples of this process along ``axis``.
      count: number of local devices.
      axis: 0 for ``(B, ...)``; 1 for ``(steps, B, ...)``.

    Returns:
      Contiguous arrays ``(count, B / count, ...)`` or ``(count, steps, B / count, ...)``.

    >>> import numpy as np
    >>> shard({"label": np.arange(4)}, 2)["label"].tolist()
    [[0, 1], [2, 3]]
    """

    def split(x: np.ndarray) -> np.ndarray:
        parts = x.reshape(*x.shape[:axis], count, x.shape[axis] // count, *x.shape[axis + 1 :])
        return np.ascontiguousarray(np.moveaxis(parts, axis, 0))

    return {name: split(x) for name, x in batch.items()}


def replicate(tree: Any, devices: tuple[jax.Device, ...]) -> Any:
    """Copy every array to all devices, with the sharding that the mapped steps return.

    The first call of a step then has the same argument shardings as the later ones, so that it is
    compiled once.

    Args:
      tree: pytree of arrays, equal on all processes.
      devices: all devices of the run.

    Returns:
      The pytree with replicated arrays.
    """
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS_NAME,))
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    if _process_count(devices) == 1:
        return jax.device_put(tree, replicated)
    # device_put would compare each array across processes, with one compiled program per shape.
    index, _ = processes.index_and_count()
    local = [device for device in devices if device.process_index == index]

    def put(x: Any) -> jax.Array:
        copies = [jax.device_put(x, device) for device in local]
        return jax.make_array_from_single_device_arrays(np.shape(x), replicated, copies)

    return jax.tree.map(put, tree)


def map_train(step: Callable[..., Any], devices: tuple[jax.Device, ...]) -> Callable[..., Any]:
    """Compile a training step for the given devices.

    Args:
      step: function ``(state, teacher_variables, key, batch) -> (state, metrics)`` that reduces its
        outputs over ``AXIS_NAME``.
      devices: all devices of the run.

    Returns:
      The mapped step. State, teacher variables and key are replicated; the batch has one shard per local
      device along its first axis. Outputs are replicated and nothing is gathered. In a single process
      the buffers of the state are donated.
    """
    # With several processes, donating a replicated argument deletes it in the first call.
    donated = (0,) if _process_count(devices) == 1 else ()
    return _map(step, devices, (None, None, None, 0), donated)


def _map(
    step: Callable[..., Any],
    devices: tuple[jax.Device, ...],
    in_axes: tuple[Any, ...],
    donated: tuple[int, ...] = (),
) -> Callable[..., Any]:
    mapped = jax.pmap(
        step,
        axis_name=AXIS_NAME,
        in_axes=in_axes,
        # Correct because the step reduces its outputs: the value of one device is the value of all.
        out_axes=None,
        devices=devices,
        donate_argnums=donated,
    )
    options = compilation.step_options(devices[0].platform)
    # Only pmap itself assembles arguments of several processes.
    if not options or _process_count(devices) > 1:
        return mapped
    return compilation.CompiledWithOptions(mapped, options)


def map_eval(step: Callable[..., Any], devices: tuple[jax.Device, ...]) -> Callable[..., Any]:
    """Compile an evaluation step for the given devices.

    Args:
      step: function ``(variables, teacher_variables, batch) -> metrics`` that reduces its outputs over
        ``AXIS_NAME``.
      devices: all devices of the run.

    Returns:
      The mapped step. Both sets of variables are replicated (``None`` if there is no teacher); the batch
      has one shard per local device along its first axis. Metrics are replicated.
    """
    # One argument: where there are as many arrays as arguments, as for a network without variables, pmap
    # (jax 0.12) takes in_axes for those of the arrays.
    mapped = _map(lambda arguments: step(*arguments), devices, ((None, None, 0),))
    return lambda *arguments: mapped(arguments)
