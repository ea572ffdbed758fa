"""The trainer: settings, components of a run, steps, the training loop, checkpoints, files.

Modules by topic, in a good order to read them:

- Config: ``config``, ``settings``, ``data_settings``, ``network_settings``, ``combinations``,
  ``config_files``, ``key_names``.
- Before the first step: ``preparation``, ``setup``, ``device_choice``, ``memory``, ``dry_run``,
  ``comparison``.
- Components of a run: ``datasets``, ``preprocessing``, ``networks``, ``initialization``,
  ``teacher_images``, ``objectives``, ``compatibility``, ``optimizers``, ``schedules``.
- Components that the user passes: ``arguments``, ``modules``, ``component_records``.
- Training: ``trainer``, ``state``, ``step``, ``metrics``, ``evaluation``, ``run_log``, ``interrupt``,
  ``saving``, ``non_finite``, ``collapse``, ``profiling``, ``result``.
- Checkpoints: ``resume``, ``checkpoints``, ``checkpoint_meta``, ``checkpoint_folder``.
- Files of a run: ``workdir``, ``workdir_lock``, ``storage``, ``run_files``, ``config_record``,
  ``metrics_file``, ``json_files``.
- Comparison of a run with an earlier start: ``identity``, ``config_changes``, ``provenance``.
- Output: ``console``, ``tensorboard``.
- Runs and networks in other formats: ``imported``, ``export``.
"""

from at_jax import extras

try:
    import ml_collections  # noqa: F401  the first package of the extra that an import meets
except ModuleNotFoundError as error:
    line = extras.missing(error, "the trainer")
    raise ModuleNotFoundError(line or str(error), name=error.name) from None
