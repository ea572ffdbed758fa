"""What a checkpoint of a run holds, and how a run goes on from one."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import serialization

from at_jax import processes, state
from at_jax.checkpoint import Checkpoints
from at_jax.experiment import Experiment


@dataclasses.dataclass
class Progress:
    """What a run knows of its past beside its state; saved with every checkpoint, as JSON.

    Attributes:
      totals: metric -> (sum, count) of the epoch so far.
      images: trained on in the epoch so far, without the dispatch that compiled.
      seconds: that these took.
      wall_seconds: of training so far, all starts together.
      origin: what result.json says of where it was trained, by the last start that trained: device,
        versions, commit, how many students together.
    """

    totals: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0
    wall_seconds: float = 0.0
    origin: dict[str, Any] = dataclasses.field(default_factory=dict)


def restore(
    checkpoints: Checkpoints, run: Experiment, key: jax.Array, limit: int | None = None
) -> tuple[state.TrainState, Progress]:
    """The state to go on from: that of the newest whole checkpoint, or a fresh one.

    Process 0 reads it, and all go on from the same.

    Args:
      checkpoints: of the run.
      run: what is trained.
      key: of the initialisation.
      limit: of no later step than this; newer checkpoints are set aside.

    Returns:
      State and progress.

    Raises:
      ValueError: if the checkpoint is of another network.
    """
    create = functools.partial(
        state.create,
        run.objective,
        run.optimizer,
        image_shape=run.dataset.image_shape,
        taps=run.taps,
    )
    restored = processes.from_primary(lambda: _read(checkpoints, run, create, key, limit))
    return (create(key=key), Progress()) if restored is None else restored


def _read(
    checkpoints: Checkpoints,
    run: Experiment,
    create: Callable[..., state.TrainState],
    key: jax.Array,
    limit: int | None,
) -> tuple[state.TrainState, Progress] | None:
    # Set aside before it is looked for: going back is not the damage that latest() warns of.
    if limit is not None:
        checkpoints.set_aside_after(limit, "ahead")
    restored = checkpoints.latest(("params", "batch_stats", "training"))
    if restored is None:
        return None
    if restored.meta["student"] != run.name:
        raise ValueError(
            f"this workdir holds a run of {restored.meta['student']}, got {run.name} to train: choose "
            "another --workdir"
        )
    training = restored.trees["training"]
    wanted = jax.eval_shape(lambda key: create(key=key), key)
    whole = serialization.from_state_dict(
        wanted,
        {
            "step": np.asarray(restored.step, np.int32),
            "params": {
                "student": restored.trees["params"],
                "adapter": training.get("adapter", {}),
            },
            "batch_stats": restored.trees["batch_stats"],
            "opt_state": training["opt_state"],
        },
    )
    pairs = zip(jax.tree_util.tree_leaves_with_path(wanted), jax.tree.leaves(whole), strict=True)
    for (path, shape), leaf in pairs:
        if (shape.shape, shape.dtype) != (leaf.shape, leaf.dtype):
            raise ValueError(
                f"this workdir holds a run of another {run.name}: {jax.tree_util.keystr(path)} is "
                f"{leaf.shape} there, {shape.shape} now: choose another --workdir"
            )
    checkpoints.set_aside_after(restored.step, "damaged")
    return whole, Progress(**restored.meta["progress"])


def save(
    checkpoints: Checkpoints,
    run: Experiment,
    host: state.TrainState,
    progress: Progress,
    test_error: float | None,
) -> None:
    """Write a checkpoint: what :func:`restore` reads, the network apart from what only training needs.

    Args:
      checkpoints: of the run.
      run: what is trained.
      host: the state, as NumPy arrays.
      progress: beside it.
      test_error: in percent; None in the middle of an epoch.
    """
    checkpoints.save(
        int(host.step),
        {
            "params": host.params["student"],
            "batch_stats": host.batch_stats,
            "training": {"adapter": host.params["adapter"], "opt_state": host.opt_state},
        },
        {
            "model": run.description,
            "student": run.name,
            "progress": dataclasses.asdict(progress),
        },
        test_error,
    )
