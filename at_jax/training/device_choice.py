"""Devices that divide every batch of a run."""

import math

import jax

from at_jax import data
from at_jax.distributed import devices
from at_jax.errors import UserError
from at_jax.training.settings import Settings

__all__ = ["devices_of"]


def devices_of(settings: Settings, batches: data.TrainBatches) -> tuple[jax.Device, ...]:
    """Select the devices of a run: of equal parts of each batch, the last of an epoch included.

    Args:
      settings: of the run; with ``runtime.devices=0`` fewer devices are taken where that is needed.
      batches: of the run.

    Returns:
      Devices of all processes.

    Raises:
      UserError: if a batch cannot be divided.
    """
    count, accumulation = settings.runtime.devices, settings.accumulation
    selected = devices.select(count, settings.batch_size, accumulation)
    last = batches.last_size
    if _divides(selected, accumulation, last):
        return selected
    if not count:
        # Fewer devices divide both sizes, unless processes or micro-batches are too many.
        common = math.gcd(settings.batch_size, last)
        one = devices.select(1, settings.batch_size, accumulation)
        if _divides(one, accumulation, common):
            return devices.select(0, common, accumulation)
    parts = len(selected) * accumulation
    raise UserError(
        f"data.drop_last=False: the last batch of an epoch must be a multiple of devices x accumulation = "
        f"{len(selected)} x {accumulation} = {parts}, got {last} images: set "
        "--config.data.drop_last=True, or use fewer devices (runtime.devices), another batch_size or less "
        "accumulation"
    )


def _divides(selected: tuple[jax.Device, ...], accumulation: int, images: int) -> bool:
    return images % (len(selected) * accumulation) == 0
