"""The files of a run: config.json, metrics.jsonl, result.json.

A workdir belongs to one config. What may differ when it is opened again is said in :func:`check`.
Of several processes only the first opens these files; all functions are called by every process.
"""

import json
import math
import os
import pathlib
import uuid
from collections.abc import Mapping
from typing import Any

from at_jax import methods, processes

CONFIG, METRICS, RESULT = "config.json", "metrics.jsonl", "result.json"


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a file atomically: a reader sees the old file or the new one, never half of one."""
    if not processes.is_primary():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: machines that share the folder may share process numbers too.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write a JSON file, as :func:`write_text`."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping to dotted keys, with tuples as lists, as JSON has them.

    >>> flatten({"a": {"b": (1, 2)}, "c": 3})
    {'a.b': [1, 2], 'c': 3}
    """
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def read_config(workdir: pathlib.Path, *, like: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a run.

    Args:
      workdir: of the run.
      like: a config with the keys that are known now.

    Returns:
      Nested keys and values.

    Raises:
      ValueError: if the file is damaged, or was written with other keys.
    """
    return processes.from_primary(lambda: _read_config(workdir / CONFIG, like))


def _read_config(path: pathlib.Path, like: Mapping[str, Any]) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text())
        differing = flatten(stored).keys() ^ flatten(like).keys()
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not readable as a config ({error}): choose another --workdir, or delete the file"
        ) from error
    if differing:
        raise ValueError(
            f"{path} was written by another version: {', '.join(sorted(differing))} stand in one of both "
            "alone: use the version that trained it, or choose another --workdir"
        )
    return stored


def check(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Check that a workdir is free, or holds a run of this config.

    ``runtime.*`` may differ, and ``epochs`` may grow where nothing else depends on their number: a
    weight that decays linearly or as a cosine does, and so does a teacher that is trained here for as
    many epochs as its student.

    Args:
      workdir: the run's folder.
      config: all keys and values.

    Raises:
      ValueError: naming the keys that differ.
    """
    processes.from_primary(lambda: _check(workdir, config))


def _check(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    path = workdir / CONFIG
    if path.exists():
        before = flatten(_read_config(path, like=config))
        now = flatten(config)
        differing = [
            f"{key}: {before[key]!r} there, {now[key]!r} now"
            for key in sorted(now)
            if before[key] != now[key] and not _may_differ(key, before, now)
        ]
        if differing:
            raise ValueError(
                f"workdir {workdir} holds a run with another config ({'; '.join(differing)}): "
                "choose another --workdir, or the same values to resume it"
            )


def claim(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Make a workdir this config's: :func:`check` it, and write config.json.

    Raises:
      ValueError: as :func:`check`, or if the folder cannot be written.
    """

    def write():
        _check(workdir, config)
        try:
            write_json(workdir / CONFIG, config)
        except OSError as error:
            raise ValueError(
                f"workdir {workdir} cannot be written ({error.strerror}): choose another --workdir"
            ) from error

    processes.from_primary(write)


def _may_differ(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    if key.startswith("runtime."):
        return True
    trains_teacher_as_long = (
        methods.needs_teacher(now["method"])
        and not now["teacher.checkpoint"]
        and not now["teacher.epochs"]
    )
    free_of_length = now["transfer.decay"] in ("constant", "steps") and not trains_teacher_as_long
    return key == "epochs" and free_of_length and now[key] > before[key]


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a line cut off by a crash is left out."""
    return processes.from_primary(lambda: _read_metrics(workdir / METRICS))


def _read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    lines = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def keep_metrics(workdir: pathlib.Path, step: int) -> list[dict[str, Any]]:
    """Drop the lines after a step, which a resumed run will write again; return the others."""

    def keep():
        lines = [line for line in _read_metrics(workdir / METRICS) if line["step"] <= step]
        write_text(workdir / METRICS, "".join(json.dumps(line) + "\n" for line in lines))
        return lines

    return processes.from_primary(keep)


def append_metrics(workdir: pathlib.Path, line: Mapping[str, Any]) -> None:
    """Add a line to metrics.jsonl. Numbers that are not finite become null: JSON has none."""
    if not processes.is_primary():
        return
    finite = {
        k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in line.items()
    }
    with open(workdir / METRICS, "a") as file:
        file.write(json.dumps(finite) + "\n")


def has_config(workdir: pathlib.Path) -> bool:
    """Whether a run lives there."""
    return processes.from_primary((workdir / CONFIG).exists)


def read_result(workdir: pathlib.Path) -> dict[str, Any] | None:
    """The result.json of a finished run; None before."""

    def read():
        path = workdir / RESULT
        return json.loads(path.read_text()) if path.exists() else None

    return processes.from_primary(read)


def has_result(workdir: pathlib.Path) -> bool:
    """Whether a run has come to its end."""
    return processes.from_primary((workdir / RESULT).exists)


def drop_result(workdir: pathlib.Path) -> None:
    """Take back that a run has come to its end."""
    if processes.is_primary():
        (workdir / RESULT).unlink(missing_ok=True)
