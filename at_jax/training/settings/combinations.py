"""Checks of a config beyond the rule of each key: names of networks and methods, and values together."""

from at_jax import models, terms
from at_jax.errors import UserError
from at_jax.training.settings import Settings
from at_jax.training.settings.data import is_of_unit_range
from at_jax.training.settings.networks import is_qualified

__all__ = ["check", "check_length", "check_scale"]

# Bounds of networks by name: tracing takes a moment for each layer, compiling several seconds.
_DEEPEST, _WIDEST = 250, 1000
# The digits are 8x8: larger images hold no more detail, and all 1,797 are resized before training.
_LARGEST_DIGITS = 256


def check(settings: Settings) -> None:
    """Check names, and values that depend on one another; names of networks also if they are not used.

    Raises:
      UserError: naming the key, the value and a valid value.
    """
    _check_network("student", settings.student)
    _check_network("teacher.model", settings.teacher.model)
    terms.parts(settings.method)
    compared = [terms.parts(each, "each method of compare") for each in settings.compare]
    if len(set(compared)) < len(compared):
        raise UserError(
            f"compare must name each method once, got {settings.compare}: leave one out"
        )
    data, transfer, optimizer = settings.data, settings.transfer, settings.optimizer
    for section, each in (("data", data), ("teacher", settings.teacher)):
        if len(each.mean) != len(each.std):
            raise UserError(
                f"{section}.mean and {section}.std must each have one number per channel, got {each.mean} "
                f"and {each.std}: set both, or neither"
            )
    if settings.teacher.checkpoint and settings.teacher.weights:
        raise UserError(
            "a run has one teacher, got teacher.checkpoint="
            f"{settings.teacher.checkpoint!r} and teacher.weights={settings.teacher.weights!r}: leave one "
            "of them out"
        )
    if data.source == "digits" and data.image_size > _LARGEST_DIGITS:
        raise UserError(
            f"data.image_size must be at most {_LARGEST_DIGITS} for the digits, which are 8x8 pixels, got "
            f"{data.image_size}: set --config.data.image_size=16"
        )
    fits = data.source != "digits" and 0 < data.image_size <= data.resize
    if data.resize and not fits:
        raise UserError(
            f"data.resize={data.resize} must be at least data.image_size, in a folder or a TFDS set, "
            f"got data.image_size={data.image_size} and data.source={data.source!r}: leave it out, or set "
            "--config.data.image_size=224 --config.data.resize=256"
        )
    if transfer.decay == "steps" and not transfer.decay_epochs:
        raise UserError(
            "transfer.decay='steps' needs the epochs of its steps, got none: set "
            '--config.transfer.decay_epochs="(60,120)"'
        )
    if optimizer.nesterov and optimizer.name != "sgd":
        raise UserError(
            f"optimizer.nesterov is for sgd, got optimizer.name={optimizer.name!r}: leave it out"
        )


def check_scale(settings: Settings) -> None:
    """Raise for the statistics of pixels in 0..1, with which a run must not begin.

    Raises:
      UserError: naming the keys, and the values for pixels in 0..255.
    """
    for section, each in (("data", settings.data), ("teacher", settings.teacher)):
        _check_scale(section, each.mean, each.std)


def _check_scale(section: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    if is_of_unit_range(mean, std):
        scaled = {
            name: tuple(round(255 * x, 2) for x in values)
            for name, values in (("mean", mean), ("std", std))
        }
        flags = " ".join(f'--config.{section}.{name}="{x}"' for name, x in scaled.items())
        raise UserError(
            f"{section}.mean and {section}.std are in 0..255, got {mean} and {std}, as for pixels in 0..1: "
            f"multiply them by 255, {flags}"
        )


def _check_network(key: str, name: str) -> None:
    if is_qualified(name):
        return  # imported later
    try:
        network = models.build(name)
    except UserError as error:
        raise UserError(f"{key}={name!r}: {error}") from None
    for field, most in (("depth", _DEEPEST), ("width", _WIDEST)):
        value = getattr(network, field, 0)
        if isinstance(value, int | float) and value > most:
            raise UserError(
                f"{key}={name!r}: the {field} of a network must be at most {most}, got {value}: set "
                f"--config.{key}=wrn_16_1, or to package:name of a module of your own"
            )


def check_length(settings: Settings, steps_per_epoch: int) -> None:
    """Raise unless the steps of a run can be counted in 32 bits.

    Raises:
      UserError: naming the largest number of epochs.
    """
    most = (2**31 - 1) // steps_per_epoch
    if settings.epochs > most:
        raise UserError(
            f"epochs must be at most {most} with {steps_per_epoch} steps each (2**31 - 1 steps), got "
            f"{settings.epochs}: set --config.epochs=200, or a larger batch_size"
        )
