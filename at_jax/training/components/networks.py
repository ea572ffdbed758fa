"""Networks of finished runs, and networks by name."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax import data, models, paths
from at_jax.distributed import processes
from at_jax.errors import UserError
from at_jax.terms import Term, changes_forward_pass
from at_jax.training.components import compatibility, component_records, imports, tracing
from at_jax.training.components.compatibility import Teacher
from at_jax.training.components.teacher_images import Normalization
from at_jax.training.files import identity, run_files
from at_jax.training.files.checkpoints import FOLDER, Checkpoints, Restored
from at_jax.training.settings import Settings
from at_jax.training.settings.networks import is_qualified

__all__ = [
    "build", "check_needs_no_teacher", "describe", "library_name", "load_teacher", "open_run",
]  # fmt: skip


def build(name: str, num_classes: int, dtype: str, key: str = "student") -> nn.Module:
    """Build a network by the name that a config gives.

    Args:
      name: for :func:`at_jax.models.build`; or ``package:name`` of a network of the user, to import.
      num_classes: K, for a class or a function of the user that takes it.
      dtype: of the arithmetic, also where it is taken.
      key: of the config that names it, for messages.

    Raises:
      UserError: if there is no such network.
    """
    if is_qualified(name):
        return component_records.named_module(name, _fields(num_classes, dtype), key)
    return models.build(name, num_classes, jnp.dtype(dtype))


def library_name(name: str) -> str:
    """The name of a network of the library; empty for a network of the user."""
    return "" if is_qualified(name) else name


def _fields(num_classes: int, dtype: str) -> dict[str, Any]:
    """Arguments of a network of the user."""
    return {"num_classes": num_classes, "dtype": jnp.dtype(dtype)}


def describe(
    settings: Settings, dataset: data.Dataset, module: nn.Module, name: str, terms: Sequence[Term]
) -> dict[str, Any]:
    """Describe a network in its checkpoints, so that :func:`open_run` finds it.

    Args:
      settings: of its run.
      dataset: that it is trained on.
      module: the network.
      name: for :func:`at_jax.models.build`; empty for a user-defined module.
      terms: of the loss.

    Returns:
      JSON; see ``Run.description``.
    """
    return {
        "name": name,
        **({} if name else {"module": component_records.record(module)}),
        "needs_forward_inputs": changes_forward_pass(terms),
        "num_classes": dataset.num_classes,
        "class_names": list(dataset.class_names),
        "image_shape": list(dataset.image_shape),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "bit_depth": dataset.bit_depth,
        "resize": dataset.resize,
        "dtype": settings.dtype,
    }


def open_run(
    workdir: str | pathlib.Path, *, which: str = "latest", module: nn.Module | str | None = None
) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """Load the network of a run.

    Args:
      workdir: of the run.
      which: ``"latest"`` or ``"best"``.
      module: for a run that trained a user-defined module: an instance, or ``"package:name"``, whose
        package is imported. Not used for a network of the library.

    Returns:
      Module, variables, and a description, a dict: ``class_names``, ``num_classes``, ``image_shape``
      (H, W, C), ``mean`` and ``std`` for :func:`at_jax.data.normalize`, and others.

    Raises:
      UserError: if there is no valid checkpoint, or the module that was trained must be passed.
    """
    if which not in ("latest", "best"):
        raise UserError(f"which must be 'latest' or 'best', got {which!r}: choose one of these")
    workdir = paths.parse(workdir)
    imports.packages(module)
    sent: tuple[Any, ...] = processes.broadcast_from_primary(lambda: tuple(_read(workdir, which)))
    restored = Restored(*sent)
    identity.check_checkpoint(identity.run_id(workdir), restored.meta)
    description = restored.meta["model"]
    trees = dict(restored.trees)
    trees |= trees.pop("collections", {})  # the collections other than params and batch_stats
    variables = {name: tree for name, tree in trees.items() if tree}
    if description["name"]:
        # Not build: a file of a run must not name what is imported.
        dtype = jnp.dtype(description["dtype"])
        network = models.build(description["name"], description["num_classes"], dtype)
    else:
        network = component_records.from_record(
            description.get("module") or {},
            module,
            workdir,
            _fields(description["num_classes"], description["dtype"]),
        )
        wanted = tracing.shapes(network, description["image_shape"], "module").variables
        fix = "pass module=, or name with --module, the network that this run trained"
        whose = f"the run in {workdir}"
        compatibility.check_variables(network, variables, wanted, whose, fix)
    return network, jax.tree.map(jnp.asarray, variables), description


def _read(workdir: pathlib.Path, which: str) -> Restored:
    if paths.reachable(workdir).is_file():
        raise UserError(
            f"{workdir} is a file: give the workdir of a run; weights of PyTorch are named by "
            "teacher.weights or init.weights, or at-jax weights converts them to a run"
        )
    if not (paths.reachable(workdir) / FOLDER).is_dir():
        raise UserError(
            f"{workdir} holds no checkpoints: give the workdir of a run "
            f"(a directory with {FOLDER}/ in it)"
        )
    with Checkpoints(workdir, create=False) as checkpoints:
        restored = getattr(checkpoints, which)(("params", "batch_stats", "collections"))
    if restored is None:
        raise UserError(f"{workdir} holds no checkpoint yet: let the run finish an epoch first")
    return restored


def check_needs_no_teacher(description: Mapping[str, Any], workdir: str | pathlib.Path) -> None:
    """Raise if a network was trained with inputs from its teacher, see ``Term.forward_inputs``.

    Raises:
      UserError: naming the run.
    """
    if description.get("needs_forward_inputs"):
        raise UserError(
            f"the network of {workdir} was trained with inputs from its teacher (forward_inputs of a "
            "term), got none: its test errors are in metrics.jsonl; load it with at_jax.checkpoint.load "
            "and pass the inputs to apply"
        )


def load_teacher(workdir: str, dtype: str, module: nn.Module | str | None = None) -> Teacher:
    """Load a finished run as a teacher.

    Args:
      workdir: of the run.
      dtype: of the teacher's arithmetic.
      module: as for :func:`open_run`.

    Raises:
      UserError: if there is no run, it is not finished, or its network needs a teacher itself.
    """
    network, variables, description = open_run(workdir, module=module)
    check_needs_no_teacher(description, workdir)
    if not run_files.has_result(paths.parse(workdir)):
        raise UserError(
            f"the teacher's run in {workdir} is not finished: run its command again, or choose "
            "another teacher.checkpoint"
        )
    if hasattr(network, "dtype"):
        network = network.clone(dtype=jnp.dtype(dtype))
    return Teacher(network, variables, description, Normalization.of(description))
