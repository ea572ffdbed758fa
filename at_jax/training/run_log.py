"""Metrics, log lines and checkpoints of one run while it trains."""

import contextlib
import copy
import json
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from at_jax.distributed import processes
from at_jax.errors import listed
from at_jax.training import collapse, metrics, resume, state
from at_jax.training.components.arguments import Callback
from at_jax.training.console import counted, log
from at_jax.training.evaluation import Evaluation
from at_jax.training.files import identity, run_files
from at_jax.training.files.checkpoints import Checkpoints
from at_jax.training.non_finite import NonFinite, remedy
from at_jax.training.progress_report import ProgressReport
from at_jax.training.resume import Progress
from at_jax.training.setup import Run

__all__ = ["RunLog", "restore_all"]


class RunLog:
    """Recorder of one run, a context manager. :meth:`open` begins a period of training.

    Args:
      run: to train.
      workdir: of the run.
      evaluate: of :func:`at_jax.training.evaluation.evaluator`.
      label: prefix of its lines, where several runs share a console.
      callbacks: receive the metrics of every epoch, on process 0.
    """

    def __init__(
        self,
        run: Run,
        workdir: pathlib.Path,
        evaluate: Callable[..., Evaluation],
        label: str = "",
        callbacks: Sequence[Callback] = (),
    ):
        self.run, self.workdir = run, workdir
        self.progress = Progress()
        self._evaluate, self._label, self._callbacks = evaluate, label, callbacks
        self._since = time.monotonic()
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> "RunLog":
        self._run_id = identity.run_id(self.workdir)
        self.checkpoints = self._exit.enter_context(Checkpoints(self.workdir))
        return self

    def __exit__(self, *exception: Any) -> bool | None:
        return self._exit.__exit__(*exception)

    def restore(self, limit: int | None = None) -> state.TrainState:
        """Restore the latest state, of step ``limit`` at most, and its progress counters."""
        if limit is not None and limit < self.run.steps:
            # First, because a run with result.json counts as finished.
            run_files.drop_result(self.workdir)
        restored, self.progress = resume.restore(self.checkpoints, self.run, self._run_id, limit)
        self._keep_metrics(int(restored.step))
        if any(line["step"] == restored.step for line in self.progress.lines):
            # Evaluated since the checkpoint, before the evaluation of another run failed.
            self.progress.start_epoch()
        return restored

    def is_unevaluated(self, step: int) -> bool:
        """Whether the evaluation at the end of an epoch failed, for a test image that could not be read."""
        return step % self.run.steps_per_epoch == 0 and bool(self.progress.totals)

    def _keep_metrics(self, step: int) -> None:
        """Drop the lines after a step, rewrite damaged ones, and report missing epochs."""
        before = run_files.read_metrics(self.workdir)
        if before and not step:
            log(
                f"No checkpoint in {self.workdir} yet: training {counted(len(before), 'epoch')} again"
            )
        self.progress.lines = run_files.keep_metrics(self.workdir, step)
        evaluated = step // self.run.steps_per_epoch - self.is_unevaluated(step)
        if missing := run_files.missing_epochs(self.progress.lines, evaluated):
            log(
                f"{self.workdir / run_files.METRICS} lacks epochs {listed(missing)}: no checkpoint holds "
                "their metrics, and best_test_error is that of the others"
            )

    def open(self, first: int, origin: Mapping[str, Any]) -> None:
        """Begin training at step ``first``; ``origin`` is that of :class:`Progress`."""
        run_files.drop_result(self.workdir)  # marks the run as unfinished
        self.progress.origin = dict(origin)
        self._config = run_files.stored_config(self.workdir)
        report = ProgressReport(
            self.workdir,
            name=self.run.name,
            evaluated_on=self.run.dataset.evaluated_on,
            steps=self.run.steps,
            first=first,
            tensorboard=self.run.settings.runtime.tensorboard,
            label=self._label,
            config_text=json.dumps(run_files.read_config(self.workdir), indent=2),
        )
        self._report = self._exit.enter_context(report)

    def collect(self, done: int, measured: dict[str, Any]) -> None:
        """Add the metrics of the steps up to ``done`` to the epoch.

        Raises:
          at_jax.loop.NonFinite: naming the first step with a non-finite loss, and the term.
        """
        # What terms report in addition has no influence on training, so it does not end the run either.
        sums = {name: np.asarray(measured[name][0]) for name in measured if metrics.is_loss(name)}
        finite = np.isfinite(np.stack(list(sums.values())))  # (metrics, steps)
        if not finite.all():
            index = int(np.argmin(finite.all(axis=0)))  # the first non-finite step
            terms = [name for name in sums if not np.isfinite(sums[name][index])]
            raise self._non_finite(done - finite.shape[1] + index + 1, " and ".join(terms))
        found = metrics.total([measured])
        self.progress.totals = metrics.total([self.progress.totals, found])
        self._report.steps(done, metrics.means(found)["loss"])

    def end_epoch(self, train_state: state.TrainState, epoch: int, teacher_variables: Any) -> bool:
        """Evaluate and record an epoch; return whether a checkpoint is due."""
        line = self._line(train_state, epoch, teacher_variables)
        best = min((each["test_error"] for each in self.progress.lines), default=math.inf)
        self.progress.start_epoch()
        # The line first: a checkpoint without its line would lose the line.
        run_files.append_metrics(self.workdir, line)
        self.progress.lines.append(run_files.finite(line))
        settings = self.run.settings
        self._report.epoch(line, settings.epochs)
        if collapse.is_new(self.progress.lines):
            log("  ".join(filter(None, (self._label, collapse.warning(self.run, line)))))
        is_best, is_last = line["test_error"] < best, epoch == settings.epochs
        return is_best or is_last or epoch % settings.runtime.checkpoint_every == 0

    def call_callbacks(self) -> None:
        """Pass the metrics of the epoch to all callbacks, in order, also after one has raised."""
        with contextlib.ExitStack() as calls:
            for callback in reversed(self._callbacks if processes.is_primary() else ()):
                # A copy: the line goes into checkpoints too.
                calls.callback(callback.on_epoch, copy.deepcopy(self.progress.lines[-1]))

    def save_epoch(self, train_state: state.TrainState) -> None:
        """Save the end of an epoch, with its error."""
        self.save(train_state, self.progress.lines[-1]["test_error"])

    def _line(
        self, train_state: state.TrainState, epoch: int, teacher_variables: Any
    ) -> dict[str, Any]:
        """Metrics of an epoch: a line of metrics.jsonl."""
        run, progress = self.run, self.progress
        step = epoch * run.steps_per_epoch
        means = metrics.means(progress.totals)
        betas = {
            term.metric: float(run.weights[term.name](step - 1))
            for term in run.objective.terms
            if term.beta is not None
        }
        evaluated = self._evaluate(
            state.variables_of(train_state),
            teacher_variables if run.evaluates_with_teacher else None,
        )
        train = metrics.percent(means, "train")
        is_constant = collapse.is_constant(run, evaluated.information, train["train_error"])
        # An optimizer of the user may have a schedule of its own.
        rate = {"learning_rate": float(run.learning_rate(step - 1))} if run.reads_rate else {}
        return {
            "epoch": epoch,
            "step": step,
            **{name: mean for name, mean in means.items() if name not in metrics.ERRORS},
            **rate,
            "beta": next(iter(betas.values()), 0.0),
            # Each weight, where there are several terms.
            **({f"beta/{term}": beta for term, beta in betas.items()} if len(betas) > 1 else {}),
            **train,
            **evaluated.errors,
            **({collapse.KEY: 1} if is_constant else {}),
            "images_per_second": progress.images / progress.seconds if progress.images else None,
        }

    def save(self, train_state: state.TrainState, test_error: float | None) -> None:
        """Write a checkpoint in the background.

        Raises:
          at_jax.loop.NonFinite: if a variable is not finite, or the optimizer's state has a NaN.
        """
        host = jax.device_get(train_state)
        for path, leaf in jax.tree_util.tree_leaves_with_path(host):
            name = jax.tree_util.keystr(path)
            # Infinity is a valid start of an optimizer's counters, such as the smallest loss so far.
            wrong = np.isnan if name.startswith(".opt_state") else lambda x: ~np.isfinite(x)
            if jnp.issubdtype(leaf.dtype, jnp.floating) and np.any(wrong(leaf)):
                raise self._non_finite(int(host.step), f"state{name}")
        self.progress.wall_seconds += time.monotonic() - self._since
        self._since = time.monotonic()
        resume.save(self.checkpoints, self.run, host, self.progress, test_error, self._config)

    def save_unless_saved(self, train_state: state.TrainState) -> None:
        """Save before a stop, within an epoch or at its end, and wait until it is on disk."""
        step = int(train_state.step)
        if step % self.run.steps_per_epoch or step not in self.checkpoints.steps:
            self.save(train_state, None)
        self.checkpoints.wait()

    def _non_finite(self, at: int, what: str) -> NonFinite:
        steps = self.checkpoints.steps
        kept = (
            f"the checkpoint of step {max(steps)} is kept"
            if steps
            else "no checkpoint has been saved yet"
        )
        verb = "are" if " and " in what else "is"
        advice = remedy(self.run, at, what)
        return NonFinite(
            f"step {at}: {what} {verb} not finite; {kept} in {self.workdir}: {advice}", self.workdir
        )


def restore_all(logs: Sequence[RunLog]) -> tuple[state.TrainState, ...]:
    """States of one step: the latest step of which every run has a valid checkpoint."""
    limit = None
    if len(logs) > 1:
        limit = processes.broadcast_from_primary(lambda: _latest_common_step(logs))
    while True:
        states = tuple(log.restore(limit) for log in logs)
        steps = {int(each.step) for each in states}
        if len(steps) == 1:
            return states
        limit = min(steps)  # a checkpoint was damaged


def _latest_common_step(logs: Sequence[RunLog]) -> int | None:
    """Latest step of which every run has a checkpoint, 0 if none; None if all are at the same step."""
    steps = [set(log.checkpoints.steps) or {0} for log in logs]
    if len({max(each) for each in steps}) == 1:
        return None
    return max(set.intersection(*steps), default=0)
