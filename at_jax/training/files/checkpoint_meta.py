"""JSON of the checkpoints of a run, read without Orbax and checked.

Each checkpoint holds, in addition to its arrays: its step, its test error, the metrics of all epochs so far
and a copy of config.json. They replace files of the run that are damaged.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from at_jax import paths
from at_jax.distributed import processes
from at_jax.training.files import json_files
from at_jax.training.files.json_files import Damaged

__all__ = ["FOLDER", "by_error", "newest", "read", "resumable_groups", "steps", "test_errors"]

FOLDER = "checkpoints"


def steps(directory: pathlib.Path) -> list[int]:
    """Steps of the checkpoints in a directory, ascending; damaged ones are included."""
    names = paths.names(directory) if directory.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal() and name == str(int(name)))


def read(directory: pathlib.Path, step: int) -> dict[str, Any]:
    """Read the JSON of a checkpoint.

    Args:
      directory: of the checkpoints.
      step: of the checkpoint.

    Raises:
      Damaged: with the reason.
    """
    try:
        meta = json_files.read(directory / str(step) / "meta" / "metadata", editable=False)
    except FileNotFoundError as error:
        raise Damaged("meta is missing") from error
    except Damaged as damaged:
        raise Damaged(
            "checksums differ in meta" if "checksum" in str(damaged) else f"meta: {damaged}"
        ) from damaged
    if not isinstance(meta.get("checksums"), dict):
        raise Damaged("meta lacks its checksums")
    # Version 0.1 recorded no step.
    if meta.get("step", step) != step:
        raise Damaged(f"it holds step {meta['step']}: its folder was renamed")
    return meta


def newest(workdir: pathlib.Path) -> tuple[int, dict[str, Any]] | None:
    """Step and JSON of the newest checkpoint whose JSON is valid; None without one."""
    directory = workdir / FOLDER
    for step in reversed(steps(directory)):
        try:
            return step, read(directory, step)
        except Damaged:
            continue
    return None


def epochs_begun(workdir: pathlib.Path) -> int:
    """Number of epochs that the checkpoints of a run have begun; the number of steps if that is unknown."""
    found = steps(workdir / FOLDER)
    saved = newest(workdir)
    per_epoch = saved[1].get("steps_per_epoch", 1) if saved else 1
    return -(-found[-1] // per_epoch) if found else 0


def test_errors(directory: pathlib.Path) -> dict[int, float | Damaged | None]:
    """Test error of each checkpoint in percent; None if it was not measured, or why it cannot be read."""
    errors: dict[int, float | Damaged | None] = {}
    for step in steps(directory):
        try:
            errors[step] = _test_error(directory, step)
        except Damaged as damaged:
            errors[step] = damaged
    return errors


def by_error(errors: Mapping[int, float | Damaged | None]) -> list[int]:
    """Steps whose test error was measured, the best first; of equal ones the latest.

    >>> by_error({10: 5.0, 20: 4.0, 30: None, 40: 4.0})
    [40, 20, 10]
    """
    measured = {step: e for step, e in errors.items() if isinstance(e, float | int)}
    return sorted(measured, key=lambda step: (measured[step], -step))


def _test_error(directory: pathlib.Path, step: int) -> float | None:
    meta = read(directory, step)
    if "test_error" in meta:
        return meta["test_error"]
    # Version 0.1 left it to Orbax, as a score without a checksum.
    try:
        score = json_files.read(directory / str(step) / "metrics" / "metrics").get("score")
    except FileNotFoundError as error:
        raise Damaged("its score is missing") from error
    except Damaged as damaged:
        raise Damaged(f"its score: {damaged}") from damaged
    if not isinstance(score, int | float) or not (score == -1.0 or 0 <= score <= 100):
        raise Damaged(f"its score is {score!r}")
    return None if score == -1.0 else 100.0 - score


def resumable_groups(workdirs: Sequence[pathlib.Path]) -> list[list[int]]:
    """Divide the runs of a program into groups that can resume together.

    Otherwise a run would repeat steps to start from the same checkpoint as the others.

    Args:
      workdirs: of the runs.

    Returns:
      Groups of indices into ``workdirs``.
    """
    saved = processes.broadcast_from_primary(
        lambda: [steps(folder / FOLDER) or [0] for folder in workdirs]
    )
    common = max(set.intersection(*map(set, saved)), default=-1)
    # A kill can leave the runs of one program one checkpoint apart: the last common one is used.
    if all(common in each[-2:] for each in saved):
        return [list(range(len(saved)))]
    latest = sorted({each[-1] for each in saved})
    return [[i for i, each in enumerate(saved) if each[-1] == step] for step in latest]
