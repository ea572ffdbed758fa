"""Networks of finished runs, and networks by name."""

import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax import models
from at_jax.distributed import processes
from at_jax.errors import UserError
from at_jax.training import modules, run_files
from at_jax.training.checkpoints import FOLDER, Checkpoints, Restored
from at_jax.training.compatibility import Teacher

__all__ = ["build", "load_teacher", "open_run"]


def build(name: str, num_classes: int, dtype: str) -> nn.Module:
    """Build a network by its name, for arithmetic in ``dtype``."""
    return models.build(name, num_classes, jnp.dtype(dtype))


def open_run(
    workdir: str | pathlib.Path, *, which: str = "latest", module: nn.Module | str | None = None
) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """Load the network of a run.

    Args:
      workdir: of the run.
      which: ``"latest"`` or ``"best"``.
      module: for a run that trained a user-defined module: an instance, or ``"package:name"``.

    Returns:
      Module, variables, and description (see ``Run.description``).

    Raises:
      UserError: if there is no valid checkpoint, or the module must be passed.
    """
    if which not in ("latest", "best"):
        raise UserError(f"which must be 'latest' or 'best', got {which!r}")
    workdir = pathlib.Path(workdir).expanduser()
    restored = processes.broadcast_from_primary(lambda: _read(workdir, which))
    description = restored.meta["model"]
    if description["name"]:
        if not isinstance(module, nn.Module):
            module = build(description["name"], description["num_classes"], description["dtype"])
    else:
        module = modules.from_record(description.get("module") or {}, module, workdir)
    collections = dict(restored.trees)
    variables = {name: tree for name, tree in _unpacked(collections).items() if tree}
    return module, jax.tree.map(jnp.asarray, variables), description


def _unpacked(trees: Mapping[str, Any]) -> dict[str, Any]:
    """Checkpointed trees as collections: further ones are saved in one tree."""
    return {name: tree for name, tree in trees.items() if name != "collections"} | trees.get(
        "collections", {}
    )


def _read(workdir: pathlib.Path, which: str) -> Restored:
    if not (workdir / FOLDER).is_dir():
        raise UserError(
            f"{workdir} holds no checkpoints: give the workdir of a run of train.py "
            f"(a directory with {FOLDER}/ in it)"
        )
    with Checkpoints(workdir, create=False) as checkpoints:
        restored = getattr(checkpoints, which)(("params", "batch_stats", "collections"))
    if restored is None:
        raise UserError(f"{workdir} holds no checkpoint yet: let the run finish an epoch first")
    return restored


def load_teacher(workdir: str, dtype: str, module: nn.Module | str | None = None) -> Teacher:
    """Load a finished run as a teacher.

    Args:
      workdir: of the run.
      dtype: of the teacher's arithmetic.
      module: as for :func:`open_run`.

    Raises:
      UserError: if there is no run, or it is not finished.
    """
    network, variables, description = open_run(workdir, module=module)
    if not run_files.has_result(pathlib.Path(workdir).expanduser()):
        raise UserError(
            f"the teacher's run in {workdir} is not finished: run its command again, or choose "
            "another teacher.checkpoint"
        )
    if hasattr(network, "dtype"):
        network = network.clone(dtype=jnp.dtype(dtype))
    return Teacher(network, variables, description)
