"""Files in the workdir of a run: checkpoints, config, metrics, result, and their checks.

- The workdir: ``workdir``, ``workdir_lock``, ``storage``.
- Checkpoints: ``checkpoints``, ``checkpoint_folder``, ``checkpoint_meta``.
- JSON: ``run_files``, ``config_record``, ``metrics_file``, ``json_files``.
- Comparison with an earlier start of the run: ``config_changes``, ``component_changes``, ``identity``.
- Commit and versions of the code: ``provenance``.
"""
