"""The trainer: settings, components of a run, steps, the training loop, checkpoints, files.

Three packages, each of which imports only those before it, config, schedules and console:

- :mod:`at_jax.training.settings`: the settings of a run as dataclasses, and checks of their combination.
- :mod:`at_jax.training.files`: checkpoints and other files in the workdir of a run.
- :mod:`at_jax.training.components`: networks, data, objective and optimizer of a run.

Modules by topic, in a good order to read them:

- Config: ``config``, ``config_files``, ``key_names``, ``schedules``.
- Before the first step: ``preparation``, ``subruns``, ``setup``, ``preprocessing``, ``device_choice``,
  ``compilation_cache``, ``description``, ``dry_run``.
- Training: ``programs``, ``trainer``, ``state``, ``step``, ``metrics``, ``evaluation``, ``run_log``,
  ``interrupt``, ``saving``, ``resume``, ``non_finite``, ``collapse``, ``profiling``, ``result``.
- Output: ``console``, ``progress_report``, ``tensorboard``, ``comparison``.
- Runs and networks in other formats: ``imported``, ``class_names``, ``export``.
"""

from at_jax import extras

try:
    import ml_collections  # noqa: F401  the first package of the extra that an import meets
except ModuleNotFoundError as error:
    line = extras.missing(error, "the trainer")
    raise ModuleNotFoundError(line or str(error), name=error.name) from None
