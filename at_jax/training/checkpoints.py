"""Checkpoints: the latest ones and the best, atomic, with a checksum of every array.

Orbax writes and renames; it does not detect that what it wrote has changed on disk, so a CRC-32 of every
array is stored with it. A checkpoint that fails the check is skipped for the one before it. Of several
processes only process 0 writes and reads.
"""

import contextlib
import json
import pathlib
import tempfile
import warnings
import zlib
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization, traverse_util
from orbax.checkpoint import checkpoint_managers

from at_jax import paths
from at_jax.distributed import processes
from at_jax.errors import UserError, listed

__all__ = ["FOLDER", "Checkpoints", "Restored", "check_can_save"]

FOLDER = "checkpoints"
_ORBAX_SCHEMES = ("", "gs")  # Orbax 0.12 raises for all other paths that are not absolute
_KEPT = 2  # latest checkpoints, so that there is one to fall back to


class Restored(NamedTuple):
    """One checkpoint.

    Attributes:
      step: number of updates.
      trees: name -> nested dict of NumPy arrays.
      meta: JSON saved with them.
    """

    step: int
    trees: dict[str, Any]
    meta: dict[str, Any]


def _checksums(tree: Any) -> dict[str, int]:
    flat = traverse_util.flatten_dict(tree, sep="/")
    return {path: zlib.crc32(np.ascontiguousarray(leaf).tobytes()) for path, leaf in flat.items()}


def _checksum_of_json(value: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def check_can_save(workdir: pathlib.Path) -> None:
    """Raise unless Orbax can save checkpoints in a workdir.

    Raises:
      UserError: for storage that the installed version writes nothing to.
    """
    if paths.scheme(workdir) not in _ORBAX_SCHEMES:
        raise UserError(
            f"{workdir}: the installed Orbax ({ocp.__version__}) cannot save checkpoints there: choose a "
            "local --workdir or one under gs://, and copy the run when it is finished"
        )


class Checkpoints:
    """Checkpoints of one run, under ``<workdir>/checkpoints``. A context manager.

    Args:
      workdir: of the run.
      create: create the directory; False to read.
    """

    def __init__(self, workdir: str | pathlib.Path, *, create: bool = True):
        self._manager: Any = None  # only in process 0
        self._exit = contextlib.ExitStack()
        if not processes.is_primary():
            return
        directory = paths.absolute(workdir) / FOLDER
        if create:
            check_can_save(directory)
            directory.mkdir(parents=True, exist_ok=True)
        elif paths.scheme(directory) not in _ORBAX_SCHEMES:
            copy = self._exit.enter_context(tempfile.TemporaryDirectory(prefix="at_jax-"))
            paths.download(directory, pathlib.Path(copy))
            directory = pathlib.Path(copy)
        policy = checkpoint_managers
        self._manager = ocp.CheckpointManager(
            directory,
            options=ocp.CheckpointManagerOptions(
                create=False,
                # Other processes do not wait for a save.
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    active_processes={0} if processes.is_multiprocess() else None
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
        with self._exit:
            if self._manager is not None:
                self._manager.close()

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints, ascending."""
        return [] if self._manager is None else sorted(self._manager.all_steps())

    def save(
        self, step: int, trees: dict[str, Any], meta: dict[str, Any], test_error: float | None
    ) -> None:
        """Write a checkpoint in the background.

        Args:
          step: number of updates; an existing checkpoint of this step is replaced.
          trees: name -> any pytree that flax can serialize.
          meta: JSON.
          test_error: in percent, for "best"; None if it was not measured.
        """
        if self._manager is None:
            return
        if step in self._manager.all_steps():
            self._manager.delete(step)
        # Copies: on CPU np.asarray is a view, and Orbax may still be writing when a step reuses the buffer.
        host = {
            name: jax.tree.map(np.array, serialization.to_state_dict(tree))
            for name, tree in trees.items()
        }
        meta = {**meta, "checksums": {name: _checksums(tree) for name, tree in host.items()}}
        meta["checksum"] = _checksum_of_json(meta)
        # Orbax has no empty items: an empty tree (no batch statistics, no adapter) is left out.
        items = {n: ocp.args.StandardSave(t) for n, t in host.items() if jax.tree.leaves(t)}
        self._manager.save(
            step,
            args=ocp.args.Composite(**items, meta=ocp.args.JsonSave(meta)),
            metrics={"score": -1.0 if test_error is None else 100.0 - test_error},
            force=True,
        )

    def wait(self) -> None:
        """Wait until every checkpoint is on disk, on every process."""
        processes.broadcast_from_primary(lambda: self._manager.wait_until_finished())

    def set_aside_after(self, step: int, reason: str) -> None:
        """Rename checkpoints newer than a step, such as damaged ones, to ``<reason>-<step>``.

        Their steps will be saved again.
        """
        folder = paths.parse(self._manager.directory)
        for newer in [s for s in self.steps if s > step]:
            aside = folder / f"{reason}-{newer}"
            paths.remove(aside)
            (folder / str(newer)).rename(aside)
        self._manager.reload()

    def latest(self, names: tuple[str, ...]) -> Restored | None:
        """Restore the latest valid checkpoint; None if there is none.

        Args:
          names: trees to restore.

        Raises:
          UserError: if all checkpoints are damaged.
        """
        return self._first_valid(self.steps[::-1], names)

    def best(self, names: tuple[str, ...]) -> Restored | None:
        """Restore the checkpoint with the lowest test error, or else the latest valid one."""
        best = self._manager.best_step()
        rest = [step for step in self.steps[::-1] if step != best]
        return self._first_valid(([] if best is None else [best]) + rest, names)

    def _first_valid(self, steps: list[int], names: tuple[str, ...]) -> Restored | None:
        for step in steps:
            try:
                return self._restore(step, names)
            except MemoryError:
                raise  # not a fault of the checkpoint
            except Exception as error:  # Orbax raises whatever the damage happens to break
                reason = (
                    str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
                )
                warnings.warn(
                    f"checkpoint {self._manager.directory / str(step)} is damaged ({reason}); "
                    "skipping it for an older one",
                    stacklevel=3,
                )
        if steps:
            raise UserError(
                f"all checkpoints under {self._manager.directory} are damaged (steps "
                f"{listed(steps)}): delete that folder to train again"
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
        # A run of an older version may lack a tree.
        wanted = [name for name in names if meta["checksums"].get(name)]
        restored = self._manager.restore(
            step, args=ocp.args.Composite(**{n: ocp.args.StandardRestore() for n in wanted})
        )
        trees: dict[str, Any] = {name: {} for name in names}
        for name in wanted:
            trees[name] = jax.tree.map(np.asarray, restored[name])
            found = _checksums(trees[name])
            broken = [
                path for path, crc in meta["checksums"][name].items() if found.get(path) != crc
            ]
            if broken:
                raise ValueError(f"checksums differ in {name}: {listed(broken)}")
        return Restored(step, trees, meta)


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]
