"""The trainer: settings, components of a run, steps, the training loop, checkpoints, files."""

from at_jax import extras

try:
    import ml_collections  # noqa: F401  the first package of the extra that an import meets
except ModuleNotFoundError as error:
    line = extras.missing(error, "the trainer")
    raise ModuleNotFoundError(line or str(error), name=error.name) from None
