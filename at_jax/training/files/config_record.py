"""config.json of a run, checked when it is read: every key, and a record of the arguments."""

import json
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

from at_jax import paths
from at_jax.distributed import processes
from at_jax.errors import UserError, listed
from at_jax.training.config import default_config, flatten
from at_jax.training.files import checkpoint_meta, json_files
from at_jax.training.files.json_files import Damaged

__all__ = [
    "ARGUMENTS", "CONFIG", "IDENTITY", "has_config", "read_arguments", "read_both", "read_config",
    "read_identity", "read_method", "settings_in", "stored_config",
]  # fmt: skip

CONFIG = "config.json"
# Keys that are no settings: the record of passed components, and at_jax.training.files.identity.
ARGUMENTS, IDENTITY = "arguments", "identity"


def has_config(workdir: pathlib.Path) -> bool:
    """True if the directory holds a run: its config.json, or a checkpoint with a copy of it.

    Raises:
      UserError: if the storage cannot be accessed.
    """

    def found():
        return (paths.reachable(workdir) / CONFIG).exists() or _copy(workdir) is not None

    return processes.broadcast_from_primary(found)


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """Read the config of a run. Keys that an older version did not have get their defaults.

    Raises:
      UserError: if there is no run, the file is damaged, or a newer version wrote it.
    """
    return settings_in(_read(workdir))


def read_arguments(workdir: pathlib.Path) -> dict[str, Any]:
    """Read the record of the components that were passed to a run; empty without any.

    Raises:
      UserError: as :func:`read_config`.
    """
    return _read(workdir).get(ARGUMENTS) or {}


def read_identity(workdir: pathlib.Path) -> dict[str, Any]:
    """Read the identity of a run; empty for a run of an older version.

    Raises:
      UserError: as :func:`read_config`.
    """
    return _read(workdir).get(IDENTITY) or {}


def _read(workdir: pathlib.Path) -> dict[str, Any]:
    return processes.broadcast_from_primary(lambda: read_both(workdir))


def read_method(workdir: pathlib.Path) -> str:
    """Read the method of a run, with the names of terms that were passed as an argument.

    Raises:
      UserError: as :func:`read_config`.
    """
    if (passed := read_arguments(workdir).get("terms")) is not None:
        return "+".join(term["name"] for term in passed) or "none"
    return read_config(workdir)["method"]


def stored_config(workdir: pathlib.Path) -> dict[str, Any]:
    """Read config.json as it is, or the copy of it in the newest checkpoint if it is damaged.

    Raises:
      UserError: if there is no run, or neither can be read.
    """
    return processes.broadcast_from_primary(lambda: _stored(workdir))


def _stored(workdir: pathlib.Path) -> dict[str, Any]:
    path = workdir / CONFIG
    try:
        return json_files.read(paths.reachable(path))
    except (FileNotFoundError, Damaged) as error:
        is_missing = isinstance(error, FileNotFoundError)
        reason = "missing" if is_missing else f"damaged ({error})"
    if (copy := _copy(workdir)) is not None:
        warnings.warn(f"{path} is {reason}: the copy in checkpoint {copy[0]} is used", stacklevel=4)
        return copy[1]
    if is_missing and not checkpoint_meta.steps(workdir / checkpoint_meta.FOLDER):
        raise UserError(f"{workdir} holds no run (no {CONFIG}): give the workdir of a run")
    raise UserError(
        f"{path} is not readable as a config: it is {reason}. Restore it from a copy, or choose another "
        "--workdir; a file that you edited needs no checksum: delete that line"
    )


def _copy(workdir: pathlib.Path) -> tuple[int, dict[str, Any]] | None:
    """Step and config of the newest checkpoint that is valid."""
    saved = checkpoint_meta.newest(workdir)
    return None if saved is None or "config" not in saved[1] else (saved[0], saved[1]["config"])


def read_both(workdir: pathlib.Path) -> dict[str, Any]:
    """Read config.json in process 0: the config, with the arguments and the identity under their keys.

    Raises:
      UserError: as :func:`read_config`.
    """
    stored = _stored(workdir)
    given, defaults = settings_in(stored), default_config().to_dict()
    used = str(given.get("method", "")).split("+")
    # Terms of a program that added its own to TERMS; those that the run does not use do not matter.
    given = {k: v for k, v in given.items() if k in defaults or k in used or not _is_term(v)}
    unknown = sorted(flatten(given).keys() - flatten(defaults).keys())
    differing = unknown or [key for key in ("method", "seed") if key not in given]
    if differing:
        raise UserError(
            f"{workdir / CONFIG} was written by another version ({listed(differing)} unknown or missing): "
            "use the version that trained it, import the module that adds its terms to "
            "at_jax.terms.TERMS, or choose another --workdir"
        )
    config = _with_defaults(given, json.loads(json.dumps(defaults)))
    return {**config, **{key: stored[key] for key in (ARGUMENTS, IDENTITY) if key in stored}}


def _is_term(section: Any) -> bool:
    """Whether a section of a config is that of a term."""
    return isinstance(section, dict) and "begin_epoch" in section


def settings_in(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The config in the content of config.json, without the record of arguments and the identity."""
    return {key: value for key, value in stored.items() if key not in (ARGUMENTS, IDENTITY)}


def _with_defaults(given: Any, defaults: Any) -> Any:
    if not isinstance(defaults, dict):
        return given
    return {
        key: _with_defaults(given[key], default) if key in given else default
        for key, default in defaults.items()
    }
