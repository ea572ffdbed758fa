"""Contents of a checkpoint, and resuming from one."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import serialization

from at_jax.distributed import compilation, processes
from at_jax.errors import UserError, one_line
from at_jax.training import state
from at_jax.training.files import checkpoint_meta, identity
from at_jax.training.files.checkpoints import Checkpoints
from at_jax.training.setup import Run

__all__ = [
    "Progress", "check_steps_per_epoch", "initial_state", "restore", "save",
]  # fmt: skip


@dataclasses.dataclass
class Progress:
    """Progress counters saved with each checkpoint, as JSON.

    Attributes:
      totals: metric -> (sum, count) of the epoch so far.
      images: trained on in the epoch so far, without the calls that compiled.
      seconds: duration of training on these images.
      wall_seconds: duration of training so far, over all starts.
      origin: device, versions, commit and number of students of the last start, for result.json.
      lines: of metrics.jsonl, for the finished epochs; they replace damaged ones.
    """

    totals: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0
    wall_seconds: float = 0.0
    origin: dict[str, Any] = dataclasses.field(default_factory=dict)
    lines: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def start_epoch(self) -> None:
        """Reset what is counted within an epoch."""
        self.totals, self.images, self.seconds = {}, 0, 0.0


def check_steps_per_epoch(run: Run, workdir: pathlib.Path) -> None:
    """Raise unless epochs have as many steps as in the checkpoints of a run.

    Other images, which data.allow_changes accepts, may change the number.

    Args:
      run: to train.
      workdir: of the run; it may hold none yet.

    Raises:
      UserError: naming both numbers.
    """
    if not run.settings.data.allow_changes:
        return
    newest = processes.broadcast_from_primary(lambda: checkpoint_meta.newest(workdir))
    before = (newest[1] if newest else {}).get("steps_per_epoch", run.steps_per_epoch)
    if before != run.steps_per_epoch:
        raise UserError(
            f"an epoch of the run in {workdir} has {before} steps, got {run.steps_per_epoch}: restore the "
            "number of training images, or choose another --workdir"
        )


def restore(
    checkpoints: Checkpoints, run: Run, run_id: str, limit: int | None = None
) -> tuple[state.TrainState, Progress]:
    """Restore the state of the latest valid checkpoint, or initialize it.

    Process 0 reads it and sends it to the others.

    Args:
      checkpoints: of the run.
      run: to train.
      run_id: of :mod:`at_jax.training.files.identity`.
      limit: latest step to restore; newer checkpoints are renamed.

    Returns:
      State and progress.

    Raises:
      UserError: if the checkpoint is of another network.
    """
    restored = processes.broadcast_from_primary(lambda: _read(checkpoints, run, run_id, limit))
    if restored is None:
        return initial_state(run), Progress()
    step, trees, meta = restored
    wanted, types = _shapes(run)
    read = _as_state(wanted, trees, step, run.name)
    return state.with_keys(read, types), Progress(**meta["progress"])


def initial_state(run: Run) -> state.TrainState:
    """Initialize the state of a run, in one program."""
    initial = run.initial.variables if run.initial else None
    create = jax.jit(_create(run), compiler_options=compilation.quick_options())
    return create(jax.random.key(run.settings.seed), initial=initial)


def _create(run: Run) -> Callable[..., state.TrainState]:
    """A function from the key, and the variables ``initial=``, to the state before the first step."""
    return functools.partial(
        state.create,
        run.objective.student,
        run.modules,
        run.optimizer,
        image_shape=run.dataset.image_shape,
        taps=run.taps,
    )


def _shapes(run: Run) -> tuple[state.TrainState, list[Any]]:
    """Shapes of the state in a checkpoint, and the types of its leaves that are typed PRNG keys."""
    types: list[Any] = []

    def create(key: jax.Array) -> state.TrainState:
        created = _create(run)(key)
        types.extend(state.key_types(created))
        return state.without_keys(created)

    return jax.eval_shape(create, jax.random.key(0)), types


def _read(
    checkpoints: Checkpoints, run: Run, run_id: str, limit: int | None
) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
    """Step, trees and metadata of the checkpoint to resume from, checked to be of this run."""
    # Renamed before reading: latest() would warn of damage.
    if limit is not None:
        checkpoints.set_aside_after(limit, "ahead")
    restored = checkpoints.latest(("params", "batch_stats", "collections", "training"))
    if restored is None:
        checkpoints.clean()
        return None
    identity.check_checkpoint(run_id, restored.meta)
    if restored.meta["student"] != run.name:
        raise UserError(
            f"this workdir holds a run of {restored.meta['student']}, got {run.name} to train: choose "
            "another --workdir"
        )
    wanted, _ = _shapes(run)
    stored = jax.tree.leaves(_as_state(wanted, restored.trees, restored.step, run.name))
    leaves = jax.tree_util.tree_leaves_with_path(wanted)
    for (path, now), there in zip(leaves, stored, strict=True):
        if (now.shape, now.dtype) != (there.shape, there.dtype):
            fix = "choose another --workdir"
            if now.shape == there.shape and 8 in (now.dtype.itemsize, there.dtype.itemsize):
                fix = f"set jax_enable_x64 as it was, or {fix}"
            raise UserError(
                f"this workdir holds a run of another {run.name}: {jax.tree_util.keystr(path)} is "
                f"{there.dtype}{there.shape} there, {now.dtype}{now.shape} now: {fix}"
            )
    checkpoints.set_aside_after(restored.step, "damaged")
    checkpoints.clean()
    return restored.step, restored.trees, restored.meta


def _as_state(
    wanted: state.TrainState, trees: Mapping[str, Any], step: int, name: str
) -> state.TrainState:
    training = _renamed(trees["training"], wanted.params)
    collections = {"batch_stats": trees["batch_stats"], **trees["collections"]}
    try:
        return serialization.from_state_dict(
            wanted,
            {
                "step": np.asarray(step, np.int32),
                "params": {"student": trees["params"], **training.get("modules", {})},
                "collections": {k: v for k, v in collections.items() if k in wanted.collections},
                "opt_state": training["opt_state"],
            },
        )
    except (KeyError, ValueError) as error:
        reason = one_line(error)
        raise UserError(
            f"this workdir holds a run of another {name} or with another optimizer ({reason}): choose "
            "another --workdir"
        ) from error


def _renamed(tree: Any, params: Mapping[str, Any]) -> Any:
    """Version 0.1 called the parameters of f_actt "adapter", and kept them without a module too."""
    if not isinstance(tree, Mapping) or "adapter" in params:  # a term of the user
        return tree
    # The student may have a module of this name.
    renamed = {k: each if k == "student" else _renamed(each, params) for k, each in tree.items()}
    if "adapter" in renamed:
        adapter = renamed.pop("adapter")
        if "f_actt" in params:
            is_whole = "opt_state" in renamed  # not a part of the optimizer's state
            renamed |= {"modules": {"f_actt": adapter}} if is_whole else {"f_actt": adapter}
    return renamed


def save(
    checkpoints: Checkpoints,
    run: Run,
    host: state.TrainState,
    progress: Progress,
    test_error: float | None,
    config: Mapping[str, Any],
) -> None:
    """Write a checkpoint that :func:`restore` reads. The network is separate from what training needs.

    Args:
      checkpoints: of the run.
      run: that is trained.
      host: the state, as NumPy arrays.
      progress: counters.
      test_error: in percent; None in the middle of an epoch.
      config: content of config.json, which replaces a damaged one.
    """
    host = state.without_keys(host)
    collections = dict(host.collections)
    checkpoints.save(
        int(host.step),
        {
            "params": host.params["student"],
            "batch_stats": collections.pop("batch_stats", {}),
            "collections": collections,
            "training": {
                "modules": {k: v for k, v in host.params.items() if k != "student"},
                "opt_state": host.opt_state,
            },
        },
        {
            "model": run.description,
            "student": run.name,
            "progress": dataclasses.asdict(progress),
            "steps_per_epoch": run.steps_per_epoch,
            "config": dict(config),
        },
        test_error,
    )
