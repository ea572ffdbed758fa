"""Checkpoints: the latest and the best, atomic, and checked when they are read.

Orbax writes and renames; what it lacks is a check of what was written (a flipped bit is restored
without a word), so a CRC-32 of every array travels along. A checkpoint that fails is passed over for
the one before it. Of several processes only the first writes and reads: it sends the others what it read.
"""

import json
import pathlib
import shutil
import warnings
import zlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization, traverse_util
from orbax.checkpoint import checkpoint_managers

from at_jax import models, processes

FOLDER = "checkpoints"
_KEPT = 2  # of the latest, so that there is one to fall back to


class Restored(NamedTuple):
    """One checkpoint.

    Attributes:
      step: updates done.
      trees: name -> nested dict of NumPy arrays.
      meta: what was saved beside them, JSON.
    """

    step: int
    trees: dict[str, Any]
    meta: dict[str, Any]


def _checksums(tree: Any) -> dict[str, int]:
    flat = traverse_util.flatten_dict(tree, sep="/")
    return {path: zlib.crc32(np.ascontiguousarray(leaf).tobytes()) for path, leaf in flat.items()}


def _checksum_of_json(value: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


class Checkpoints:
    """The checkpoints of one run, under ``<workdir>/checkpoints``. Use it in a ``with``."""

    def __init__(self, workdir: str | pathlib.Path, *, create: bool = True):
        self._manager = None
        if not processes.is_primary():
            return
        directory = pathlib.Path(workdir).absolute() / FOLDER
        if create:
            directory.mkdir(parents=True, exist_ok=True)
        policy = checkpoint_managers
        self._manager = ocp.CheckpointManager(
            directory,
            options=ocp.CheckpointManagerOptions(
                create=False,
                # Alone: the others do not wait for a save.
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    active_processes={0} if processes.several() else None
                ),
                best_fn=_score,
                best_mode="max",
                preservation_policy=policy.AnyPreservationPolicy(
                    [policy.LatestN(_KEPT), policy.BestN(get_metric_fn=_score, n=1)]
                ),
            ),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._manager is not None:
            self._manager.close()

    @property
    def steps(self) -> list[int]:
        """Steps that there are checkpoints of, ascending."""
        return [] if self._manager is None else sorted(self._manager.all_steps())

    def save(
        self, step: int, trees: dict[str, Any], meta: dict[str, Any], test_error: float | None
    ) -> None:
        """Write a checkpoint in the background.

        Args:
          step: updates done; a checkpoint of this step that is there already is replaced.
          trees: name -> any pytree that flax can serialise.
          meta: JSON.
          test_error: in percent, for "best"; None where it was not measured.
        """
        if self._manager is None:
            return
        if step in self._manager.all_steps():
            self._manager.delete(step)
        # Copies: on CPU np.asarray is a view, and Orbax still writes when a step has taken the buffer.
        host = {
            name: jax.tree.map(np.array, serialization.to_state_dict(tree))
            for name, tree in trees.items()
        }
        meta = {**meta, "checksums": {name: _checksums(tree) for name, tree in host.items()}}
        meta["checksum"] = _checksum_of_json(meta)
        # An empty tree (no batch statistics, no adapter) is no item to Orbax: it is left out.
        items = {n: ocp.args.StandardSave(t) for n, t in host.items() if jax.tree.leaves(t)}
        self._manager.save(
            step,
            args=ocp.args.Composite(**items, meta=ocp.args.JsonSave(meta)),
            metrics={"score": -1.0 if test_error is None else 100.0 - test_error},
            force=True,
        )

    def wait(self) -> None:
        """Return when all is on disk, on every process."""
        processes.from_primary(lambda: self._manager.wait_until_finished())

    def set_aside_after(self, step: int, reason: str) -> None:
        """Rename what is newer than a step: damaged checkpoints that were passed over, for example.

        They are in the way of the steps that will be saved again; whoever wants to look into them
        finds them as ``<reason>-<step>``.
        """
        folder = pathlib.Path(str(self._manager.directory))
        for newer in [s for s in self.steps if s > step]:
            aside = folder / f"{reason}-{newer}"
            shutil.rmtree(aside, ignore_errors=True)
            (folder / str(newer)).rename(aside)
        self._manager.reload()

    def latest(self, names: tuple[str, ...]) -> Restored | None:
        """The newest checkpoint that is whole, or None where there is none.

        Args:
          names: the trees that are wanted.

        Raises:
          ValueError: if there are checkpoints and none of them is whole.
        """
        return self._first_whole(self.steps[::-1], names)

    def best(self, names: tuple[str, ...]) -> Restored | None:
        """The checkpoint of the lowest test error; falls back to the latest."""
        best = self._manager.best_step()
        rest = [step for step in self.steps[::-1] if step != best]
        return self._first_whole(([] if best is None else [best]) + rest, names)

    def _first_whole(self, steps: list[int], names: tuple[str, ...]) -> Restored | None:
        for step in steps:
            try:
                return self._restore(step, names)
            except MemoryError:
                raise  # says nothing of the checkpoint
            except Exception as error:  # Orbax raises whatever the damage happens to break
                reason = (
                    str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
                )
                warnings.warn(
                    f"checkpoint {self._manager.directory / str(step)} is damaged ({reason}); "
                    "passing over it to an older one",
                    stacklevel=3,
                )
        if steps:
            raise ValueError(
                f"all checkpoints under {self._manager.directory} are damaged (steps "
                f"{', '.join(map(str, steps))}): delete that folder to train again"
            )
        return None

    def _restore(self, step: int, names: tuple[str, ...]) -> Restored:
        meta = self._manager.restore(
            step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
        ).meta
        if (
            _checksum_of_json({k: v for k, v in meta.items() if k != "checksum"})
            != meta["checksum"]
        ):
            raise ValueError("checksums differ in meta")
        wanted = [name for name in names if meta["checksums"][name]]
        restored = self._manager.restore(
            step, args=ocp.args.Composite(**{n: ocp.args.StandardRestore() for n in wanted})
        )
        trees = {name: {} for name in names}
        for name in wanted:
            trees[name] = jax.tree.map(np.asarray, restored[name])
            found = _checksums(trees[name])
            broken = [
                path for path, crc in meta["checksums"][name].items() if found.get(path) != crc
            ]
            if broken:
                raise ValueError(f"checksums differ in {name}: {', '.join(broken[:3])}")
        return Restored(step, trees, meta)


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]


def open_run(
    workdir: str | pathlib.Path, *, which: str = "latest", module: nn.Module | None = None
) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """As :func:`load`, with the network's description (``Experiment.description``) as third."""
    if which not in ("latest", "best"):
        raise ValueError(f"which must be 'latest' or 'best', got {which!r}")
    restored = processes.from_primary(lambda: _read(pathlib.Path(workdir).expanduser(), which))
    model = restored.meta["model"]
    if module is None:
        if not model["name"]:
            raise ValueError(
                f"the run in {workdir} trained a module of the user's own: pass it, module=MyNet(...)"
            )
        module = models.build(model["name"], model["num_classes"], jnp.dtype(model["dtype"]))
    variables = {name: tree for name, tree in restored.trees.items() if tree}
    return module, jax.tree.map(jnp.asarray, variables), model


def _read(workdir: pathlib.Path, which: str) -> Restored:
    """The network of a run."""
    if not (workdir / FOLDER).is_dir():
        raise ValueError(
            f"{workdir} holds no checkpoints: give the workdir of a run of train.py "
            f"(a folder with {FOLDER}/ in it)"
        )
    with Checkpoints(workdir, create=False) as checkpoints:
        restored = getattr(checkpoints, which)(("params", "batch_stats"))
    if restored is None:
        raise ValueError(f"{workdir} holds no checkpoint yet: let the run finish an epoch first")
    return restored


def load(
    workdir: str | pathlib.Path, *, which: str = "latest", module: nn.Module | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Open a run again.

    Args:
      workdir: of a run of train.py.
      which: ``"latest"``, as the paper reports, or ``"best"`` on the evaluated set.
      module: needed only where the run trained a module that :func:`at_jax.models.build` cannot name.

    Returns:
      The linen module and its variables: ``module.apply(variables, images, train=False)``.

    Raises:
      ValueError: if there is no checkpoint, or none that is whole.
    """
    return open_run(workdir, which=which, module=module)[:2]
