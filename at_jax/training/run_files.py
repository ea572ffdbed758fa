"""Files of a run: config.json, metrics.jsonl, result.json.

A workdir belongs to one config and to the components passed with it; see :func:`check`. All processes call
these functions; only process 0 opens the files.
"""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from at_jax import paths
from at_jax.distributed import processes
from at_jax.errors import UserError, listed
from at_jax.terms import TERMS, parts
from at_jax.training.arguments import check_recorded
from at_jax.training.config import default_config, flatten

__all__ = [
    "CONFIG", "METRICS", "RESULT", "TEACHER", "append_metrics", "check", "claim", "drop_result",
    "has_config", "has_result", "keep_metrics", "read_arguments", "read_config", "read_identity",
    "read_method", "read_metrics", "read_result", "record_identity", "write_json", "write_text",
]  # fmt: skip

CONFIG, METRICS, RESULT = "config.json", "metrics.jsonl", "result.json"
TEACHER = "teacher"  # subdirectory: the run of a teacher that was trained first
# Keys of config.json that are not settings: the record of passed components, and at_jax.training.identity.
_ARGUMENTS, _IDENTITY = "arguments", "identity"
# Where something is stored. It may be moved, if the identity of the run tells whether it is the same.
_PLACES = ("data.data_dir", "teacher.checkpoint")


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a file atomically: a reader sees the old file or the new one."""
    if processes.is_primary():
        paths.write_bytes(path, text.encode())


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write a JSON file, as :func:`write_text`."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """Read the config of a run. Keys that an older version did not have get their defaults.

    Raises:
      UserError: if there is no run, the file is damaged, or a newer version wrote it.
    """
    return _settings(processes.broadcast_from_primary(lambda: _read(workdir / CONFIG)))


def read_arguments(workdir: pathlib.Path) -> dict[str, Any]:
    """Read the record of the components that were passed to a run; empty without any.

    Raises:
      UserError: as :func:`read_config`.
    """
    return processes.broadcast_from_primary(lambda: _read(workdir / CONFIG)).get(_ARGUMENTS) or {}


def read_identity(workdir: pathlib.Path) -> dict[str, Any]:
    """Read the identity of a run; empty for a run of an older version.

    Raises:
      UserError: as :func:`read_config`.
    """
    return processes.broadcast_from_primary(lambda: _read(workdir / CONFIG)).get(_IDENTITY) or {}


def record_identity(workdir: pathlib.Path, identity: Mapping[str, Any]) -> None:
    """Replace the identity of a run in config.json."""

    def write():
        stored = _read(workdir / CONFIG)
        if stored.get(_IDENTITY) != identity:
            write_json(workdir / CONFIG, {**stored, _IDENTITY: identity})

    processes.broadcast_from_primary(write)


def read_method(workdir: pathlib.Path) -> str:
    """Read the method of a run, with the names of terms that were passed as an argument."""
    if (passed := read_arguments(workdir).get("terms")) is not None:
        return "+".join(term["name"] for term in passed) or "none"
    return read_config(workdir)["method"]


def _settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in stored.items() if key not in (_ARGUMENTS, _IDENTITY)}


def _read(path: pathlib.Path) -> dict[str, Any]:
    if not paths.reachable(path).is_file():
        raise UserError(f"{path.parent} holds no run (no {CONFIG}): give the workdir of a run")
    try:
        stored = json.loads(path.read_text())
        recorded = {key: stored[key] for key in (_ARGUMENTS, _IDENTITY) if key in stored}
        given = _settings(stored)
        unknown = sorted(flatten(given).keys() - flatten(default_config().to_dict()).keys())
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise UserError(
            f"{path} is not readable as a config ({error}): choose another --workdir, or delete the file"
        ) from error
    differing = unknown or [key for key in ("method", "seed") if key not in given]
    if differing:
        raise UserError(
            f"{path} was written by another version ({listed(differing)} unknown or missing): use the "
            "version that trained it, or choose another --workdir"
        )
    config = _with_defaults(given, json.loads(json.dumps(default_config().to_dict())))
    return {**config, **recorded}


def _with_defaults(given: Any, defaults: Any) -> Any:
    if not isinstance(defaults, dict):
        return given
    return {
        key: _with_defaults(given[key], default) if key in given else default
        for key, default in defaults.items()
    }


def check(
    workdir: pathlib.Path, config: Mapping[str, Any], arguments: Mapping[str, Any] | None = None
) -> None:
    """Check that a workdir is free, or holds a run of this config.

    ``runtime.*``, ``compare`` and the sections of terms that the loss lacks may differ, and so may the
    places of data and teacher: :mod:`at_jax.training.identity` compares what is there. ``epochs`` may grow
    unless something else depends on it: a weight with linear or cosine decay, a learning rate with a cosine
    or one-cycle schedule, or a teacher that is trained here for as many epochs as its student.

    Args:
      workdir: of the run.
      config: all keys and values.
      arguments: record of the components that were passed.

    Raises:
      UserError: naming the keys that differ.
    """
    processes.broadcast_from_primary(lambda: _check(workdir, config, arguments or {}))


def _check(workdir: pathlib.Path, config: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    if not (workdir / CONFIG).exists():
        return
    stored = _read(workdir / CONFIG)
    before_arguments = stored.get(_ARGUMENTS)
    before, now = flatten(_settings(stored)), flatten(config)
    places = _PLACES if _IDENTITY in stored else ()
    # Terms that are passed may read the sections of others.
    unused = set() if arguments.get("terms") else TERMS.keys() - set(parts(config["method"]))
    differing = [
        f"{key}: {before[key]!r} there, {now[key]!r} now"
        for key in sorted(now)
        if before[key] != now[key]
        # Without a place a new teacher would be trained.
        and not (key in places and (now[key] or not before[key]))
        and key.split(".")[0] not in unused
        and not _may_differ(key, before, now, workdir)
    ]
    if differing:
        raise UserError(
            f"workdir {workdir} holds a run with another config ({listed(differing)}): choose another "
            "--workdir, or the same values to resume it"
        )
    if before_arguments is not None:  # version 0.1 did not record them
        check_recorded(before_arguments, arguments, workdir)


def claim(
    workdir: pathlib.Path,
    config: Mapping[str, Any],
    arguments: Mapping[str, Any] | None = None,
    identity: Mapping[str, Any] | None = None,
) -> None:
    """Check a workdir as :func:`check` does, and write config.json.

    Raises:
      UserError: as :func:`check`, or if the directory cannot be written.
    """

    def write():
        _check(workdir, config, arguments or {})
        try:
            recorded = {_ARGUMENTS: arguments or {}} | ({_IDENTITY: identity} if identity else {})
            write_json(workdir / CONFIG, {**config, **recorded})
        except OSError as error:
            raise UserError(
                f"workdir {workdir} cannot be written ({error.strerror}): choose another --workdir"
            ) from error

    processes.broadcast_from_primary(write)


def _may_differ(
    key: str, before: Mapping[str, Any], now: Mapping[str, Any], workdir: pathlib.Path
) -> bool:
    if key.startswith("runtime.") or key in ("compare", "data.allow_changes"):
        return True
    trains_teacher_as_long = (workdir / TEACHER).exists() and not now["teacher.epochs"]
    depends_on_length = (
        now["transfer.decay"] not in ("constant", "steps")
        or now["optimizer.schedule"] not in ("constant", "steps")
        or trains_teacher_as_long
    )
    return key == "epochs" and not depends_on_length and now[key] > before[key]


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Read the lines of metrics.jsonl; a line cut off by a crash is left out."""
    return processes.broadcast_from_primary(lambda: _read_metrics(workdir / METRICS))


def _read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    lines = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def keep_metrics(workdir: pathlib.Path, step: int) -> list[dict[str, Any]]:
    """Remove the lines after a step, which a resumed run writes again; return the others."""

    def keep():
        lines = [line for line in _read_metrics(workdir / METRICS) if line["step"] <= step]
        write_text(workdir / METRICS, "".join(json.dumps(line) + "\n" for line in lines))
        return lines

    return processes.broadcast_from_primary(keep)


def append_metrics(workdir: pathlib.Path, line: Mapping[str, Any]) -> None:
    """Append a line to metrics.jsonl. Non-finite numbers become null: JSON has none."""
    if not processes.is_primary():
        return
    finite = {
        k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in line.items()
    }
    path, text = workdir / METRICS, json.dumps(finite) + "\n"
    if paths.scheme(workdir):  # objects cannot grow
        write_text(path, (path.read_text() if path.exists() else "") + text)
        return
    with open(path, "a") as file:
        file.write(text)


def has_config(workdir: pathlib.Path) -> bool:
    """True if the directory holds a run."""
    return processes.broadcast_from_primary(lambda: (paths.reachable(workdir) / CONFIG).exists())


def read_result(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Read result.json; None for an unfinished run."""

    def read():
        path = workdir / RESULT
        return json.loads(path.read_text()) if path.exists() else None

    return processes.broadcast_from_primary(read)


def has_result(workdir: pathlib.Path) -> bool:
    """True if the run is finished."""
    return processes.broadcast_from_primary((workdir / RESULT).exists)


def drop_result(workdir: pathlib.Path) -> None:
    """Delete result.json: marks the run as unfinished."""
    if processes.is_primary():
        (workdir / RESULT).unlink(missing_ok=True)
