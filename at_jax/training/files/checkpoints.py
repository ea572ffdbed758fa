"""Checkpoints: the latest ones and the best, atomic, with a checksum of every array.

Orbax writes and renames; it does not detect that what it wrote has changed on disk, so a CRC-32 of every
array is stored with it, in the JSON that :mod:`at_jax.training.files.checkpoint_meta` reads. A checkpoint
that fails the check is skipped for the one before it. Of several processes only process 0 writes and reads.
"""

import contextlib
import math
import pathlib
import tempfile
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization

from at_jax import paths
from at_jax.distributed import processes
from at_jax.errors import UserError, listed
from at_jax.training.files import checkpoint_folder, checkpoint_meta, json_files, storage
from at_jax.training.files.checkpoint_meta import FOLDER
from at_jax.training.files.json_files import Damaged

__all__ = ["FOLDER", "Checkpoints", "Restored", "check_can_save"]

_ORBAX_SCHEMES = ("", "gs")  # Orbax 0.12 raises for all other paths that are not absolute


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
        self._writes = create
        self._directory = paths.absolute(workdir) / FOLDER
        self._exit = contextlib.ExitStack()
        if not processes.is_primary():
            return
        if create:
            check_can_save(self._directory)
            checkpoint_folder.make(self._directory)
        elif paths.scheme(self._directory) not in _ORBAX_SCHEMES:
            local = self._exit.enter_context(tempfile.TemporaryDirectory(prefix="at_jax-"))
            paths.download(self._directory, pathlib.Path(local) / FOLDER)
            self._directory = pathlib.Path(local) / FOLDER
        self._exit.enter_context(checkpoint_folder.quiet_orbax())
        self._errors = checkpoint_meta.test_errors(self._directory)
        self._manager = checkpoint_folder.open_manager(self._directory, self._errors)
        if create:
            self._exit.enter_context(checkpoint_folder.writing())

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        with self._exit:
            if self._manager is None:
                return
            try:
                with storage.conversion(self._directory):
                    self._manager.close()
            except OSError:
                if kind is None:
                    raise
                # A consequence of the error that ends the run.
            if self._writes:
                paths.remove(self._directory / checkpoint_folder.DELETED)

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints, ascending."""
        if self._manager is None:
            return []
        return sorted({*self._manager.all_steps(), *checkpoint_meta.steps(self._directory)})

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
        with storage.conversion(self._directory):
            self._manager.wait_until_finished()
            paths.remove(self._directory / checkpoint_folder.DELETED)
            if step in self._manager.all_steps():
                self._manager.delete(step)
            # np.array, because np.asarray is a view on CPU, and a step may reuse the buffer while Orbax
            # still writes.
            host = {
                name: jax.tree.map(np.array, serialization.to_state_dict(tree))
                for name, tree in trees.items()
            }
            checksums = {name: checkpoint_folder.checksums(tree) for name, tree in host.items()}
            meta = {**meta, "step": step, "test_error": test_error, "checksums": checksums}
            # Orbax has no empty items: an empty tree (no batch statistics, no adapter) is left out.
            items = {n: ocp.args.StandardSave(t) for n, t in host.items() if jax.tree.leaves(t)}
            self._errors[step] = test_error
            checkpoint_folder.save(
                self._manager,
                step,
                args=ocp.args.Composite(**items, meta=ocp.args.JsonSave(json_files.sealed(meta))),
                force=True,
            )

    def wait(self) -> None:
        """Wait until every checkpoint is on disk, on every process."""
        with storage.conversion(self._directory):
            processes.broadcast_from_primary(lambda: self._manager.wait_until_finished())

    def clean(self) -> None:
        """Delete what killed processes left of checkpoints that they were saving or deleting."""
        checkpoint_folder.clean(self._directory)
        self._manager.reload()

    def set_aside_after(self, step: int, reason: str) -> None:
        """Rename checkpoints newer than a step, such as damaged ones, to ``<reason>-<step>``.

        Their steps will be saved again.
        """
        for newer in [s for s in self.steps if s > step]:
            aside = self._directory / f"{reason}-{newer}"
            paths.remove(aside)
            (self._directory / str(newer)).rename(aside)
            self._errors.pop(newer, None)
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
        """Restore the checkpoint with the lowest test error, or else the latest valid one.

        It warns if the run had a lower error, of which no valid checkpoint is left.
        """
        measured = checkpoint_meta.by_error(self._errors)
        rest = [step for step in self.steps[::-1] if step not in measured]
        for step in rest:
            if isinstance(damaged := self._errors.get(step), Damaged):
                self._warn(step, damaged)
        restored = self._first_valid(measured + rest, names)
        if restored is not None:
            self._check_best(restored.step)
        return restored

    def _check_best(self, step: int) -> None:
        measured = self._errors.get(step)
        error = measured if isinstance(measured, float | int) else math.inf
        saved = checkpoint_meta.newest(self._directory.parent)
        lines = saved[1].get("progress", {}).get("lines", []) if saved else []
        lowest = min(lines, key=lambda line: line["test_error"], default=None)
        if lowest is not None and lowest["test_error"] < error:
            warnings.warn(
                f"the best checkpoint under {self._directory}, of step {lowest['step']} with an error of "
                f"{lowest['test_error']:.2f} %, is gone; using step {step}",
                stacklevel=3,
            )

    def _first_valid(self, steps: list[int], names: tuple[str, ...]) -> Restored | None:
        for step in steps:
            try:
                return self._restore(step, names)
            except MemoryError:
                raise  # not a fault of the checkpoint
            except Exception as error:  # Orbax raises whatever the damage happens to break
                self._warn(step, error)
        if steps:
            raise UserError(
                f"all checkpoints under {self._directory} are damaged (steps {listed(sorted(steps))}): "
                "restore them from a copy, or train again in another --workdir"
            )
        return None

    def _warn(self, step: int, error: Any) -> None:
        lines = str(error).strip().splitlines() or [repr(error)]
        warnings.warn(
            f"checkpoint {self._directory / str(step)} is damaged ({lines[0][:200]}); "
            "skipping it for an older one",
            stacklevel=3,
        )

    def _restore(self, step: int, names: tuple[str, ...]) -> Restored:
        meta = checkpoint_meta.read(self._directory, step)
        # A run of an older version may lack a tree.
        wanted = [name for name in names if meta["checksums"].get(name)]
        restored = self._manager.restore(
            step, args=ocp.args.Composite(**{n: ocp.args.StandardRestore() for n in wanted})
        )
        trees: dict[str, Any] = {name: {} for name in names}
        for name in wanted:
            trees[name] = jax.tree.map(np.asarray, restored[name])
            found = checkpoint_folder.checksums(trees[name])
            broken = [
                path for path, crc in meta["checksums"][name].items() if found.get(path) != crc
            ]
            if broken:
                raise ValueError(f"checksums differ in {name}: {listed(broken)}")
        return Restored(step, trees, meta)
