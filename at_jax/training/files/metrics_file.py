"""metrics.jsonl: a line of JSON per epoch.

The lines have no checksums. Each checkpoint holds those of all epochs before it, so that damaged or missing
lines are restored from the newest one. All processes call these functions; only process 0 opens the file.
"""

import json
import math
import os
import pathlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from at_jax import paths
from at_jax.distributed import processes
from at_jax.errors import UserError, listed
from at_jax.training.console import counted
from at_jax.training.files import checkpoint_meta

__all__ = ["METRICS", "append_metrics", "finite", "keep_metrics", "missing_epochs", "read_metrics"]

METRICS = "metrics.jsonl"
_USED = ("epoch", "test_error")  # keys that readers rely on


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Read the lines of metrics.jsonl, by step.

    A line cut off by a crash is left out. Damaged lines are replaced by those in the newest checkpoint, or
    left out, with a warning.

    Raises:
      UserError: if a directory has the name of the file.
    """
    return processes.broadcast_from_primary(lambda: _read(workdir))


def keep_metrics(workdir: pathlib.Path, step: int) -> list[dict[str, Any]]:
    """Remove the lines after a step, which a resumed run writes again; return the others.

    Raises:
      UserError: as :func:`read_metrics`.
      OSError: if the file cannot be written.
    """

    def keep():
        path = workdir / METRICS
        lines = [line for line in _read(workdir) if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        if text != (path.read_bytes() if path.exists() else b""):
            paths.write_bytes(path, text)
        return lines

    return processes.broadcast_from_primary(keep)


def append_metrics(workdir: pathlib.Path, line: Mapping[str, Any]) -> None:
    """Append a line to metrics.jsonl; see :func:`finite`.

    Raises:
      OSError: if the file cannot be written.
    """
    if not processes.is_primary():
        return
    path, text = workdir / METRICS, json.dumps(finite(line)) + "\n"
    if paths.scheme(workdir):  # objects cannot grow
        before = path.read_bytes() if path.exists() else b""
        paths.write_bytes(path, before + text.encode())
        return
    with open(path, "a") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def finite(line: Mapping[str, Any]) -> dict[str, Any]:
    """Replace non-finite numbers by None: JSON has none.

    >>> finite({"step": 4, "loss": float("nan")})
    {'step': 4, 'loss': None}
    """
    return {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in line.items()}


def missing_epochs(lines: Iterable[Mapping[str, Any]], epochs: int) -> list[int]:
    """Epochs from 1 to ``epochs`` without a line.

    >>> missing_epochs([{"epoch": 1}, {"epoch": 3}], 4)
    [2, 4]
    """
    found = {line.get("epoch") for line in lines}
    return [epoch for epoch in range(1, epochs + 1) if epoch not in found]


def _read(workdir: pathlib.Path) -> list[dict[str, Any]]:
    path = workdir / METRICS
    lines, bad = _parse(path)
    saved = checkpoint_meta.newest(workdir)
    copies: list[dict[str, Any]] = saved[1].get("progress", {}).get("lines", []) if saved else []
    by_step = {line["step"]: line for line in lines}
    restored = [copy for copy in copies if by_step.get(copy["step"]) != copy]
    by_step |= {copy["step"]: copy for copy in restored}
    result = [by_step[step] for step in sorted(by_step)]
    if restored:
        epochs = listed(copy.get("epoch") for copy in restored)
        warnings.warn(
            f"{path} is damaged: epochs {epochs} are read from a checkpoint", stacklevel=4
        )
    elif bad:
        gaps = missing_epochs(result, max((line.get("epoch", 0) for line in result), default=0))
        lacking = f": it lacks epochs {listed(gaps)}" if gaps else ""
        warnings.warn(
            f"{path} is damaged in {counted(bad, 'line')}, left out{lacking}", stacklevel=4
        )
    return result


def _parse(path: pathlib.Path) -> tuple[list[dict[str, Any]], int]:
    """Valid lines, each step once, and the number of others. The last one may be cut off by a crash."""
    try:
        texts = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): move it away; the run's checkpoints hold its lines"
        ) from error
    parsed = [_object(text) for text in texts if text.strip()]
    used = [key for key in _USED if any(line and key in line for line in parsed)]
    valid = [line for line in parsed if line is not None and _is_line(line, used)]
    by_step = {line["step"]: line for line in valid}
    cut_off = bool(texts[-1].strip()) and parsed[-1] is None
    return list(by_step.values()), len(parsed) - len(by_step) - cut_off


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text.decode())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_line(line: Mapping[str, Any], used: Sequence[str]) -> bool:
    """Whether a line has a step and the keys ``used``, and all its values are numbers or None."""
    counts = [line[key] for key in ("epoch", "step") if key in line]
    return (
        "step" in line
        and all(type(count) is int and count >= 0 for count in counts)  # not bool
        and all(line.get(key) is not None for key in used)
        and all(value is None or type(value) in (int, float) for value in line.values())
    )
