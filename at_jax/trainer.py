"""The epochs of one network: dispatch steps, collect metrics, evaluate, save. Reads the clock."""

import functools
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from at_jax import metrics, parallel, processes, resume, run_directory, state, step
from at_jax.checkpoint import Checkpoints
from at_jax.evaluation import evaluator
from at_jax.experiment import Experiment
from at_jax.interrupt import Interrupted, interruptible
from at_jax.profiling import Profiler
from at_jax.report import Report
from at_jax.resume import Progress

# Metrics stay on the device meanwhile: fetching them at every step would stall a fast one.
_SECONDS_BETWEEN_LOOKS = 0.5
# Among several processes a clock would not do: what one sees and stops at, all must see.
_DISPATCHES_BETWEEN_LOOKS = 50


class NonFinite(Exception):
    """A loss or a parameter is no longer a finite number."""


class Trainer:
    """Trains one network in one workdir; started again it goes on from the last whole checkpoint."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: pathlib.Path,
        run: Experiment,
        devices: tuple[jax.Device, ...],
        *,
        profile: bool = False,
    ):
        self.config, self.workdir, self.run, self.devices = config, workdir, run, devices
        self._local_devices, self._several = parallel.local_count(devices), processes.several()
        self._progress = Progress()
        self._profiler = Profiler(workdir / "profile", wanted=profile)
        self._since = time.monotonic()
        self._compiled: set[int] = set()  # lengths of dispatch
        self._per_dispatch = (
            config.runtime.steps_per_dispatch or parallel.default_steps_per_dispatch(devices)
        )
        self._evaluate = evaluator(
            run.objective.student, run.prepare_eval, run.dataset.test, config.batch_size, devices
        )
        self.train_steps = parallel.map_train(
            functools.partial(
                step.train_steps,
                objective=run.objective,
                optimizer=run.optimizer,
                weights=run.weights,
                prepare=run.prepare_train,
                accumulation=config.accumulation,
                axis_name=parallel.AXIS_NAME,
            ),
            devices,
        )

    def train(self) -> float:
        """Do the epochs that are left.

        Returns:
          Seconds of training, all starts together.

        Raises:
          Interrupted: once all is saved.
          NonFinite: naming the step and the term.
        """
        with Checkpoints(self.workdir) as checkpoints, interruptible() as interrupted:
            train_state, self._progress = resume.restore(
                checkpoints, self.run, jax.random.key(self.config.seed)
            )
            first = int(train_state.step)
            run_directory.keep_metrics(self.workdir, first)
            if first < self.run.steps:
                # A result is the sign of a finished run, which this one no longer is.
                run_directory.drop_result(self.workdir)
                self._epochs(train_state, first, checkpoints, interrupted)
            checkpoints.wait()
        self._profiler.close()
        return self._progress.wall_seconds

    def _epochs(self, train_state, first: int, checkpoints, interrupted) -> None:
        run, config = self.run, self.config
        key = jax.random.fold_in(jax.random.key(config.seed), 1)  # 0 was the initialisation
        frozen = run.teacher.variables if run.teacher else None
        train_state, frozen, key = parallel.replicate((train_state, frozen, key), self.devices)
        lines = run_directory.read_metrics(self.workdir)
        best = min((line["test_error"] for line in lines), default=math.inf)
        report = Report(
            self.workdir,
            name=run.name,
            evaluated_on=run.dataset.evaluated_on,
            steps=run.steps,
            first=first,
            tensorboard=config.runtime.tensorboard,
        )
        with report:
            for epoch in range(first // run.steps_per_epoch, config.epochs):
                end = (epoch + 1) * run.steps_per_epoch
                train_state = self.advance(train_state, end, frozen, key, report, interrupted)
                if int(train_state.step) < end:
                    self._stop(train_state, checkpoints)
                line = self._line(train_state, epoch + 1)
                self._progress.totals, self._progress.images, self._progress.seconds = {}, 0, 0.0
                # The line first: a checkpoint without its line would lose the line for good.
                run_directory.append_metrics(self.workdir, line)
                is_best, best = line["test_error"] < best, min(best, line["test_error"])
                is_last = epoch + 1 == config.epochs
                if is_best or is_last or (epoch + 1) % config.runtime.checkpoint_every == 0:
                    self._save(checkpoints, train_state, line["test_error"])
                report.epoch(line, config.epochs)
                if processes.any_of(interrupted()):
                    # After the last epoch too: a teacher's end must not begin its student.
                    self._stop(train_state, checkpoints)

    def advance(
        self,
        train_state: state.TrainState,
        end: int,
        frozen: Any,
        key: jax.Array,
        report: Report,
        interrupted: Callable[[], bool],
    ) -> state.TrainState:
        """Step up to `end`, or to an interrupt. The host runs ahead of the device, but not far."""
        now = int(train_state.step)
        pending: list[tuple[int, Any]] = []
        clock = shown = time.monotonic()
        # Several processes agree to stop at the end of an epoch.
        while now < end and (self._several or not interrupted()):
            steps = min(self._per_dispatch, end - now)
            self._profiler.before(now, steps, train_state)
            if steps not in self._compiled:
                jax.block_until_ready(train_state)  # what is queued is not part of compiling
            began = time.monotonic()
            batches = parallel.shard(self.batches(now, steps), self._local_devices, axis=1)
            train_state, measured = self.train_steps(train_state, frozen, key, batches)
            now += steps
            pending.append((now, measured))
            if steps in self._compiled:
                self._progress.images += steps * self.config.batch_size
            else:
                # The first dispatch of a length compiles; it is no measure of speed.
                jax.block_until_ready(measured)
                self._compiled.add(steps)
                clock += time.monotonic() - began
            if len(pending) > parallel.RUN_AHEAD:
                jax.block_until_ready(pending[-1 - parallel.RUN_AHEAD][1])
            if self._is_time_to_look(pending, time.monotonic() - shown):
                self._collect(pending, report, keep=parallel.RUN_AHEAD)
                shown = time.monotonic()
        self._collect(pending, report, keep=0)
        self._progress.seconds += time.monotonic() - clock
        return train_state

    def batches(self, first: int, steps: int) -> dict[str, np.ndarray]:
        """This process's part of the batches of some steps, stacked: arrays (steps, b, ...)."""
        part = processes.index_and_count()
        batches = [self.run.batches.batch(s, part) for s in range(first, first + steps)]
        if steps == 1:
            return {name: x[None] for name, x in batches[0].items()}
        return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}

    def _is_time_to_look(self, pending: list[tuple[int, Any]], seconds: float) -> bool:
        if self._several:
            return len(pending) >= _DISPATCHES_BETWEEN_LOOKS
        return seconds > _SECONDS_BETWEEN_LOOKS

    def _collect(self, pending: list[tuple[int, Any]], report: Report, keep: int) -> None:
        """Wait for all dispatches but the last `keep`: check them, and add them to the epoch."""
        ready, pending[:] = pending[: len(pending) - keep], pending[len(pending) - keep :]
        for done, measured in ready:
            measured = jax.device_get(measured)
            sums = {name: np.asarray(total) for name, (total, _) in measured.items()}
            finite = np.isfinite(np.stack(list(sums.values())))  # (metrics, steps)
            if not finite.all():
                index = int(np.argmin(finite.all(axis=0)))  # the first step that went wrong
                terms = [name for name in sums if not np.isfinite(sums[name][index])]
                raise NonFinite(
                    self._sorry(done - finite.shape[1] + index + 1, " and ".join(terms))
                )
            self._progress.totals = metrics.total([self._progress.totals, measured])
            report.steps(done, metrics.means(metrics.total([measured]))["loss"])

    def _line(self, train_state: state.TrainState, epoch: int) -> dict[str, Any]:
        """The metrics of an epoch."""
        step_, progress = epoch * self.run.steps_per_epoch, self._progress
        means = metrics.means(progress.totals)
        train_error = 100 * means.pop("error")
        variables = {
            "params": train_state.params["student"],
            "batch_stats": train_state.batch_stats,
        }
        betas = {term: float(schedule(step_ - 1)) for term, schedule in self.run.weights.items()}
        return {
            "epoch": epoch,
            "step": step_,
            **means,
            "learning_rate": float(self.run.learning_rate(step_ - 1)),
            "beta": next(iter(betas.values()), 0.0),
            # Of one transfer term, as most methods have, that is all; of several, each.
            **({f"beta/{term}": beta for term, beta in betas.items()} if len(betas) > 1 else {}),
            "train_error": train_error,
            "test_error": self._evaluate(variables),
            "images_per_second": progress.images / progress.seconds if progress.images else None,
        }

    def _save(self, checkpoints, train_state, test_error: float | None) -> None:
        host = jax.device_get(train_state)
        for name, leaf in jax.tree_util.tree_leaves_with_path(host):
            if not np.all(np.isfinite(leaf)):
                raise NonFinite(self._sorry(int(host.step), f"state{jax.tree_util.keystr(name)}"))
        self._progress.wall_seconds += time.monotonic() - self._since
        self._since = time.monotonic()
        resume.save(checkpoints, self.run, host, self._progress, test_error)

    def _stop(self, train_state, checkpoints) -> None:
        step_ = int(train_state.step)
        if step_ % self.run.steps_per_epoch or step_ not in checkpoints.steps:
            self._save(checkpoints, train_state, None)
        checkpoints.wait()
        raise Interrupted(
            f"Stopped after step {step_} of {self.run.steps}, saved in {self.workdir}: "
            "the same command goes on from there"
        )

    def _sorry(self, at: int, what: str) -> str:
        return (
            f"step {at}: {what} is not finite; the last good checkpoint stays in {self.workdir}: lower "
            "optimizer.learning_rate or the weight beta, and start in another --workdir"
        )
