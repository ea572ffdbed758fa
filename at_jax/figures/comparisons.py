"""Comparison runs: finished runs of the same student in subfolders of a run, such as ``RUN/none``."""

import dataclasses
import pathlib
from typing import Any

from at_jax.errors import UserError
from at_jax.figures import curves, networks
from at_jax.figures.curves import History
from at_jax.figures.networks import Network
from at_jax.training.components.networks import open_run
from at_jax.training.console import log
from at_jax.training.files import run_files

__all__ = ["baseline", "find", "histories", "results"]

_LABELS_ONLY = "none"  # method, and the subfolder of its run


def find(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Find the finished runs in direct subfolders, without the teacher."""
    return [
        path.parent
        for path in sorted(workdir.glob(f"*/{run_files.RESULT}"))
        if path.parent.name != run_files.TEACHER and run_files.has_config(path.parent)
    ]


def results(workdir: pathlib.Path) -> list[dict[str, Any] | None]:
    """Read result.json of every comparison run."""
    return [run_files.read_result(folder) for folder in find(workdir)]


def histories(workdir: pathlib.Path) -> list[History]:
    """Read the metrics of a run and of its comparison runs, sorted by method.

    A comparison run that cannot be read is logged and left out.
    """
    found = [curves.read(workdir)]
    for folder in find(workdir):
        try:
            found.append(curves.read(folder))
        except UserError as error:
            log(f"not in the figures: {error}")
    return curves.in_order(found)


def baseline(workdir: pathlib.Path, student: Network) -> Network | None:
    """Load the student that was trained without a teacher, from the finished run in ``RUN/none``.

    Args:
      workdir: of the run with transfer.
      student: of that run.

    Returns:
      The network, titled "student alone"; None if there is no such run of the same network.
    """
    folder = workdir / _LABELS_ONLY
    if folder not in find(workdir):
        return None
    try:
        if run_files.read_method(folder) != _LABELS_ONLY:
            return None
        module, variables, description = open_run(folder, module=student.module)
    except UserError as error:
        log(f"not in the figures: {error}")
        return None
    if any(
        description.get(key) != student.description.get(key)
        for key in ("name", "num_classes", "image_shape")
    ):
        return None
    return dataclasses.replace(
        student,
        title=networks.ALONE,
        module=module,
        variables=variables,
        description=description,
        inputs=None,
    )
