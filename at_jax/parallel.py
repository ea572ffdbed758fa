"""Devices: the only file that knows how many there are and what pmap is.

``pmap`` maps the step over the devices of all processes; parameters are replicated, batches are split:
first among the processes, in order, then among the devices of each. Since jax 0.8 it is ``jit`` of
``shard_map`` underneath, and costs nothing over ``jit`` on one device.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from at_jax import processes

AXIS_NAME = "batch"
# Dispatches that the host is ahead of the device: enough to hide its own work, few enough that Ctrl-C is
# quick and that no more than 50 steps are queued: on virtual CPU devices more than about 100 queued
# collectives abort the process (jax 0.10).
RUN_AHEAD = 2
MAX_STEPS_PER_DISPATCH = 50 // (RUN_AHEAD + 1)


def devices(count: int, batch_size: int, accumulation: int = 1) -> tuple[jax.Device, ...]:
    """The devices to use, of all processes, those of process 0 first.

    Args:
      count: how many of each process; 0 for as many as the batch can be cut into equal parts for.
      batch_size: images an update.
      accumulation: micro-batches that a device's part is cut into in turn.

    Returns:
      The devices.

    Raises:
      ValueError: if there are not that many, or the batch cannot be cut.
    """
    _, hosts = processes.index_and_count()
    # In the order of the processes: the parts of the batch are dealt out in it.
    found = [[d for d in jax.devices() if d.process_index == host] for host in range(hosts)]
    here = len(found[0])
    if any(len(of_host) != here for of_host in found):
        raise ValueError(
            "every process must have as many devices as the others, got "
            f"{', '.join(str(len(of_host)) for of_host in found)}: start them on machines that are alike"
        )
    if not 0 <= count <= here:
        raise ValueError(
            f"runtime.devices must be 0 (automatic) to {here} on this machine, got {count}: on CPU, "
            "virtual devices come with XLA_FLAGS=--xla_force_host_platform_device_count=N"
        )
    if not count:
        fitting = [n for n in range(1, here + 1) if batch_size % (n * hosts * accumulation) == 0]
        count = max(fitting, default=1)
    used = tuple(device for of_host in found for device in of_host[:count])
    check_batch_size(batch_size, used, accumulation)
    return used


def local_count(used: tuple[jax.Device, ...]) -> int:
    """How many of the devices belong to this process."""
    return len(used) // _processes(used)


def _processes(used: tuple[jax.Device, ...]) -> int:
    return len({device.process_index for device in used})


def describe(used: tuple[jax.Device, ...]) -> str:
    """The devices in words, for example ``"4 x NVIDIA H100"``."""
    hosts = _processes(used)
    return f"{len(used)} x {used[0].device_kind}" + (f" in {hosts} processes" if hosts > 1 else "")


def default_steps_per_dispatch(used: tuple[jax.Device, ...]) -> int:
    """How many steps to put into one program: several where launching a step costs more than the host."""
    return 1 if used[0].platform == "cpu" else 10


def check_batch_size(batch_size: int, used: tuple[jax.Device, ...], accumulation: int) -> None:
    """Raise unless a batch can be cut into equal parts.

    Raises:
      ValueError: with the numbers and the nearest sizes that fit.
    """
    parts = len(used) * accumulation
    if batch_size < parts or batch_size % parts:
        lower = batch_size // parts * parts
        fitting = " or ".join(str(n) for n in (lower, lower + parts) if n > 0)
        names, factors = "devices", f"{local_count(used)}"
        if (hosts := _processes(used)) > 1:
            names, factors = f"{names} x processes", f"{factors} x {hosts}"
        raise ValueError(
            f"batch_size must be a multiple of {names} x accumulation = {factors} x {accumulation} "
            f"= {parts}, got {batch_size}: use {fitting}, or fewer devices (runtime.devices)"
        )


def shard(batch: Mapping[str, np.ndarray], count: int, axis: int = 0) -> dict[str, np.ndarray]:
    """Cut the batch axis into ``count`` equal parts and put the parts first.

    Args:
      batch: arrays whose axis ``axis`` is the batch, or this process's part of it.
      count: number of devices, of this process.
      axis: 0 for ``(B, ...)``; 1 for ``(steps, B, ...)``.

    Returns:
      Arrays ``(count, B / count, ...)`` or ``(count, steps, B / count, ...)``.

    >>> import numpy as np
    >>> shard({"label": np.arange(4)}, 2)["label"].tolist()
    [[0, 1], [2, 3]]
    """

    def cut(x):
        parts = x.reshape(*x.shape[:axis], count, x.shape[axis] // count, *x.shape[axis + 1 :])
        return np.ascontiguousarray(np.moveaxis(parts, axis, 0))

    return {name: cut(x) for name, x in batch.items()}


def replicate(tree: Any, used: tuple[jax.Device, ...]) -> Any:
    """Put every array on all devices, the way the mapped steps return it.

    The first call then finds its arguments as every later one does, and nothing compiles twice.
    """
    mesh = jax.sharding.Mesh(np.array(used), (AXIS_NAME,))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    if _processes(used) == 1:
        return jax.device_put(tree, everywhere)
    # device_put would compare every array among the processes, with a program for each shape.
    local = [device for device in used if device.process_index == processes.index_and_count()[0]]

    def put(x):
        copies = [jax.device_put(x, device) for device in local]
        return jax.make_array_from_single_device_arrays(np.shape(x), everywhere, copies)

    return jax.tree.map(put, tree)


def map_train(step: Callable[..., Any], used: tuple[jax.Device, ...]) -> Callable[..., Any]:
    """Compile ``step(state, teacher, key, batch) -> (state, metrics)`` for these devices.

    State, teacher and key are replicated, the batch is split along its first axis. The state's buffers
    are donated in a single process. Outputs are those of one device, which is right because the step
    reduces over ``AXIS_NAME``: nothing is gathered.
    """
    return jax.pmap(
        step,
        axis_name=AXIS_NAME,
        in_axes=(None, None, None, 0),
        out_axes=None,
        devices=used,
        # Across processes a donated replicated argument dies in the first call.
        donate_argnums=(0,) if _processes(used) == 1 else (),
    )


def map_eval(step: Callable[..., Any], used: tuple[jax.Device, ...]) -> Callable[..., Any]:
    """Compile ``step(variables, batch) -> metrics`` for these devices."""
    return jax.pmap(step, axis_name=AXIS_NAME, in_axes=(None, 0), out_axes=None, devices=used)
