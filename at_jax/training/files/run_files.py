"""Files of a run: config.json, metrics.jsonl, result.json.

A workdir belongs to one config and to the components passed with it; see :func:`check`. All processes call
these functions; only process 0 opens the files. What is read is checked: see
:mod:`at_jax.training.files.json_files` and :mod:`at_jax.training.files.metrics_file`.
"""

import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

from at_jax import paths
from at_jax.distributed import processes
from at_jax.errors import UserError, listed
from at_jax.training.files import checkpoint_meta, config_changes, json_files, storage
from at_jax.training.files.config_record import (
    ARGUMENTS,
    CONFIG,
    IDENTITY,
    has_config,
    read_arguments,
    read_both,
    read_config,
    read_identity,
    read_method,
    stored_config,
)  # fmt: skip
from at_jax.training.files.json_files import Damaged
from at_jax.training.files.metrics_file import (
    METRICS,
    append_metrics,
    finite,
    keep_metrics,
    missing_epochs,
    read_metrics,
)  # fmt: skip

__all__ = [
    "CONFIG", "FIGURES", "METRICS", "RESULT", "TEACHER", "append_metrics", "check", "claim", "drop_result",
    "finite", "has_config", "has_result", "keep_metrics", "missing_epochs", "read_arguments",
    "read_config", "read_identity", "read_method", "read_metrics", "read_result", "record_identity",
    "stored_config", "write_json", "write_text",
]  # fmt: skip

RESULT = "result.json"
FIGURES = ("attention.png", "curves.png", "report.html")
TEACHER = "teacher"  # subdirectory: the run of a teacher that was trained first


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a file atomically: a reader sees the old file or the new one.

    Raises:
      UserError: if a directory has its name.
      OSError: if it cannot be written.
    """
    if not processes.is_primary():
        return
    try:
        paths.write_bytes(path, text.encode())
    except IsADirectoryError as error:
        raise UserError(f"{path} must be a file, got a directory: move it away") from error


def write_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """Write an object as JSON with a checksum, as :func:`write_text`."""
    write_text(path, json_files.dumps(value))


def check(
    workdir: pathlib.Path,
    config: Mapping[str, Any],
    arguments: Mapping[str, Any] | None = None,
    *,
    keys: Mapping[str, str] | None = None,
) -> None:
    """Check that a workdir is free, or holds a run of this config.

    ``runtime.*``, ``compare``, ``data.allow_changes``, ``data.skip_corrupt``, ``data.workers``,
    ``data.memory_limit_mb`` and the sections of terms that the loss lacks may differ, and so may
    the places of data and teacher: :mod:`at_jax.training.files.identity` compares what is there.
    ``epochs`` may grow, or shrink to those that have begun, unless something else depends on it: a weight
    with linear or cosine decay, a learning rate with a cosine or one-cycle schedule, or a teacher that is
    trained here for as many epochs as its student.

    Args:
      workdir: of the run.
      config: all keys and values.
      arguments: record of the components that were passed.
      keys: for messages, keys that the user sets instead of a key of ``config``.

    Raises:
      UserError: naming the keys that differ.
    """
    processes.broadcast_from_primary(lambda: _check(workdir, config, arguments or {}, keys or {}))


def _check(
    workdir: pathlib.Path,
    config: Mapping[str, Any],
    arguments: Mapping[str, Any],
    keys: Mapping[str, str],
) -> None:
    if (workdir / CONFIG).exists() or _has_remains(workdir):
        stored = read_both(workdir)
        has_teacher = (workdir / TEACHER).exists()
        begun = checkpoint_meta.epochs_begun(workdir)
        config_changes.check(
            workdir, stored, config, arguments, keys, has_teacher=has_teacher, epochs_begun=begun
        )
    elif taken := [name for name in FIGURES if (workdir / name).exists()]:
        raise UserError(
            f"workdir {workdir} holds no run, and files that a run would replace ({listed(taken)}): choose "
            "a new folder, or move them away"
        )


def _has_remains(workdir: pathlib.Path) -> bool:
    """Whether a workdir without config.json holds other parts of a run."""
    return (workdir / RESULT).exists() or bool(
        checkpoint_meta.steps(workdir / checkpoint_meta.FOLDER)
    )


def _check_checkpoints(workdir: pathlib.Path) -> None:
    """Raise if checkpoints that must be there are gone: the run would be trained again in silence."""
    folder = workdir / checkpoint_meta.FOLDER
    has_result, has_metrics = (workdir / RESULT).exists(), (workdir / METRICS).exists()
    if not (has_result or has_metrics) or checkpoint_meta.steps(folder):
        return
    # A run that was killed early has lines, and an empty folder.
    if has_result or not folder.is_dir():
        what = "is finished" if has_result else f"has {METRICS}"
        raise UserError(
            f"the run in {workdir} {what}, but its {folder.name}/ is missing or empty: restore it from a "
            "copy, or train again in another --workdir"
        )


def claim(
    workdir: pathlib.Path,
    config: Mapping[str, Any],
    arguments: Mapping[str, Any] | None = None,
    identity: Mapping[str, Any] | None = None,
) -> None:
    """Check a workdir as :func:`check` does, and write config.json.

    Raises:
      UserError: as :func:`check`, if the run's checkpoints are gone, or the directory cannot be written.
      storage.StorageError: if it is full.
    """

    def write():
        _check(workdir, config, arguments or {}, {})
        _check_checkpoints(workdir)
        recorded = {ARGUMENTS: arguments or {}} | ({IDENTITY: identity} if identity else {})
        path, text = workdir / CONFIG, json_files.dumps({**config, **recorded})
        try:
            if not path.is_file() or path.read_bytes() != text.encode():
                write_text(path, text)
        except OSError as error:
            storage.check_space(workdir, error)
            raise UserError(
                f"workdir {workdir} cannot be written ({error.strerror}): choose another --workdir"
            ) from error

    processes.broadcast_from_primary(write)


def record_identity(workdir: pathlib.Path, identity: Mapping[str, Any]) -> None:
    """Replace the identity of a run in config.json.

    Raises:
      UserError: as :func:`read_config`.
    """

    def write():
        stored = read_both(workdir)
        if stored.get(IDENTITY) != identity:
            write_json(workdir / CONFIG, {**stored, IDENTITY: identity})

    processes.broadcast_from_primary(write)


def read_result(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Read result.json; None for an unfinished run, and with a warning for a damaged file."""

    def read():
        path = workdir / RESULT
        try:
            return json_files.read(path)
        except FileNotFoundError:
            return None
        except Damaged as damaged:
            warnings.warn(
                f"{path} is damaged ({damaged}): the command that trained the run writes it again",
                stacklevel=4,
            )
            return None

    return processes.broadcast_from_primary(read)


def has_result(workdir: pathlib.Path) -> bool:
    """True if the run is finished."""
    return processes.broadcast_from_primary((workdir / RESULT).exists)


def drop_result(workdir: pathlib.Path) -> None:
    """Delete result.json: marks the run as unfinished."""
    if not processes.is_primary():
        return
    try:
        (workdir / RESULT).unlink(missing_ok=True)
    except (IsADirectoryError, PermissionError) as error:
        if not (workdir / RESULT).is_dir():
            raise
        raise UserError(
            f"{workdir / RESULT} must be a file, got a directory: move it away"
        ) from error
