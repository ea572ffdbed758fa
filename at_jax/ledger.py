"""What is written down of one run while it trains: metrics of its steps, lines, checkpoints."""

import contextlib
import functools
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from at_jax import metrics, processes, resume, run_directory, state
from at_jax.checkpoint import Checkpoints
from at_jax.experiment import Experiment
from at_jax.report import Report
from at_jax.resume import Progress


class NonFinite(Exception):
    """A loss or a parameter is no longer a finite number.

    Attributes:
      workdir: of the run that it happened to.
    """

    def __init__(self, message: str, workdir: pathlib.Path):
        super().__init__(message)
        self.workdir = workdir


class Ledger:
    """The books of one run. Use it in a ``with``; :meth:`open` begins the part that is trained.

    Args:
      config: of the run.
      workdir: where it lives.
      run: what is trained.
      evaluate: from replicated variables to the error in percent.
      label: goes before its lines, where several runs share a screen.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: pathlib.Path,
        run: Experiment,
        evaluate: Callable[[Any], float],
        label: str = "",
    ):
        self.config, self.workdir, self.run = config, workdir, run
        self.progress = Progress()
        self._evaluate, self._label = evaluate, label
        self._since = time.monotonic()
        self._best, self._error = math.inf, math.inf
        self._exit = contextlib.ExitStack()

    def __enter__(self):
        self.checkpoints = self._exit.enter_context(Checkpoints(self.workdir))
        return self

    def __exit__(self, *exception):
        return self._exit.__exit__(*exception)

    def restore(self, limit: int | None = None) -> state.TrainState:
        """The state to go on from, that of step `limit` at the latest; the progress that goes with it."""
        if limit is not None and limit < self.run.steps:
            # Before anything goes back: a result would be taken for that of a finished run.
            run_directory.drop_result(self.workdir)
        key = jax.random.key(self.config.seed)
        restored, self.progress = resume.restore(self.checkpoints, self.run, key, limit)
        return restored

    def open(self, first: int, origin: dict[str, Any]) -> None:
        """Begin with step `first`; `origin` is what result.json will say of where it was trained."""
        # A result is the sign of a finished run, which this one no longer is.
        run_directory.drop_result(self.workdir)
        run_directory.keep_metrics(self.workdir, first)  # later lines will be written again
        self.progress.origin = origin
        lines = run_directory.read_metrics(self.workdir)
        self._best = min((line["test_error"] for line in lines), default=math.inf)
        report = Report(
            self.workdir,
            name=self.run.name,
            evaluated_on=self.run.dataset.evaluated_on,
            steps=self.run.steps,
            first=first,
            tensorboard=self.config.runtime.tensorboard,
            label=self._label,
        )
        self._report = self._exit.enter_context(report)

    def collect(self, done: int, measured: dict[str, Any]) -> None:
        """Check the metrics of a dispatch that ends with step `done`, and add them to the epoch.

        Raises:
          NonFinite: naming the first step that went wrong, and the term.
        """
        sums = {name: np.asarray(total) for name, (total, _) in measured.items()}
        finite = np.isfinite(np.stack(list(sums.values())))  # (metrics, steps)
        if not finite.all():
            index = int(np.argmin(finite.all(axis=0)))  # the first step that went wrong
            terms = [name for name in sums if not np.isfinite(sums[name][index])]
            raise self._non_finite(done - finite.shape[1] + index + 1, " and ".join(terms))
        self.progress.totals = metrics.total([self.progress.totals, measured])
        self._report.steps(done, metrics.means(metrics.total([measured]))["loss"])

    def end_epoch(self, train_state: state.TrainState, epoch: int) -> bool:
        """Evaluate and write the line of an epoch; return whether it is time to save."""
        line = self._line(train_state, epoch)
        self.progress.totals, self.progress.images, self.progress.seconds = {}, 0, 0.0
        # The line first: a checkpoint without its line would lose the line for good.
        run_directory.append_metrics(self.workdir, line)
        self._report.epoch(line, self.config.epochs)
        self._error = line["test_error"]
        is_best, self._best = self._error < self._best, min(self._error, self._best)
        is_last = epoch == self.config.epochs
        return is_best or is_last or epoch % self.config.runtime.checkpoint_every == 0

    def save_epoch(self, train_state: state.TrainState) -> None:
        """Save the end of an epoch, with its error."""
        self.save(train_state, self._error)

    def _line(self, train_state: state.TrainState, epoch: int) -> dict[str, Any]:
        """The metrics of an epoch."""
        step, progress = epoch * self.run.steps_per_epoch, self.progress
        means = metrics.means(progress.totals)
        train_error = 100 * means.pop("error")
        variables = {
            "params": train_state.params["student"],
            "batch_stats": train_state.batch_stats,
        }
        betas = {term: float(schedule(step - 1)) for term, schedule in self.run.weights.items()}
        return {
            "epoch": epoch,
            "step": step,
            **means,
            "learning_rate": float(self.run.learning_rate(step - 1)),
            "beta": next(iter(betas.values()), 0.0),
            # Of one transfer term, as most methods have, that is all; of several, each.
            **({f"beta/{term}": beta for term, beta in betas.items()} if len(betas) > 1 else {}),
            "train_error": train_error,
            "test_error": self._evaluate(variables),
            "images_per_second": progress.images / progress.seconds if progress.images else None,
        }

    def save(self, train_state: state.TrainState, test_error: float | None) -> None:
        """Write a checkpoint, in the background.

        Raises:
          NonFinite: if it would hold anything but finite numbers.
        """
        host = jax.device_get(train_state)
        for name, leaf in jax.tree_util.tree_leaves_with_path(host):
            if not np.all(np.isfinite(leaf)):
                raise self._non_finite(int(host.step), f"state{jax.tree_util.keystr(name)}")
        self.progress.wall_seconds += time.monotonic() - self._since
        self._since = time.monotonic()
        resume.save(self.checkpoints, self.run, host, self.progress, test_error)

    def save_as_it_is(self, train_state: state.TrainState) -> None:
        """Save for a stop, in the middle of an epoch or at its end, and wait until it is on disk."""
        step = int(train_state.step)
        if step % self.run.steps_per_epoch or step not in self.checkpoints.steps:
            self.save(train_state, None)
        self.checkpoints.wait()

    def _non_finite(self, at: int, what: str) -> NonFinite:
        return NonFinite(
            f"step {at}: {what} is not finite; the last good checkpoint stays in {self.workdir}: lower "
            "optimizer.learning_rate or the weight beta, and start in another --workdir",
            self.workdir,
        )


def restore_all(ledgers: list[Ledger]) -> tuple[state.TrainState, ...]:
    """States of one step: where a kill left some runs ahead of others, the newest that all have."""
    limit = None
    if len(ledgers) > 1:
        limit = processes.from_primary(lambda: _newest_of_all(ledgers))
    while True:
        states = tuple(ledger.restore(limit) for ledger in ledgers)
        steps = {int(each.step) for each in states}
        if len(steps) == 1:
            return states
        limit = min(steps)  # a checkpoint was damaged


def _newest_of_all(ledgers: list[Ledger]) -> int | None:
    """The newest step that every run has a checkpoint of, 0 if none; None where they agree already."""
    steps = [set(ledger.checkpoints.steps) or {0} for ledger in ledgers]
    if len({max(each) for each in steps}) == 1:
        return None
    return max(set.intersection(*steps), default=0)


def by_module(runs: list[Experiment], make: Callable[[Experiment], Any]) -> list[Any]:
    """`make` of every run, once for those that have one network: it compiles."""
    made = functools.cache(
        lambda module: make(next(r for r in runs if r.objective.student == module))
    )
    return [made(run.objective.student) for run in runs]
