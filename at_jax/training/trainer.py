"""Training loop of one student, or of several that share a teacher."""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from at_jax import data
from at_jax.distributed import devices, processes
from at_jax.objective import Objective
from at_jax.training import step
from at_jax.training.components.arguments import Callback
from at_jax.training.config import order_seed
from at_jax.training.console import log
from at_jax.training.evaluation import Evaluation, evaluator
from at_jax.training.files import provenance
from at_jax.training.interrupt import Interrupted, interruptible
from at_jax.training.profiling import Profiler
from at_jax.training.resume import Progress
from at_jax.training.run_log import RunLog, restore_all
from at_jax.training.saving import call_callbacks, saved_on_error
from at_jax.training.setup import Run
from at_jax.training.state import TrainState

__all__ = ["Trainer"]

# Metrics stay on the device in between: fetching them at every step would stall a fast one.
_SECONDS_BETWEEN_FETCHES = 0.5
# Several processes must fetch at the same step, so they count calls instead.
_CALLS_BETWEEN_FETCHES = 50


class Trainer:
    """Trains runs, each in its workdir, from their latest valid checkpoints.

    Args:
      runs: with their workdirs: one, or several with the same teacher, images, order and length.
      used: devices to split a batch over.
      labels: prefixes of the runs' lines on the console; empty for their workdirs, where there are several.
      profile: write a profiler trace of some steps to the first workdir.
      callbacks: receive the metrics of every epoch of the first run.
    """

    def __init__(
        self,
        runs: Sequence[tuple[Run, pathlib.Path]],
        used: tuple[jax.Device, ...],
        *,
        labels: Sequence[str] = (),
        profile: bool = False,
        callbacks: Sequence[Callback] = (),
    ):
        self.devices = used
        self.run, workdir = runs[0]  # common settings are read from the first
        settings = self.run.settings
        self._local_device_count = devices.local_count(used)
        self._profiler = Profiler(workdir / "profile", wanted=profile)
        self._stream = data.Stream(
            self.run.batches, processes.index_and_count(), settings.data.workers
        )
        self._compiled: set[tuple[int, int]] = set()  # steps of a call, images of a step
        default = devices.default_steps_per_dispatch(used)
        self._per_call = settings.runtime.steps_per_dispatch or default

        @functools.cache
        def evaluate(objective: Objective) -> Callable[..., Evaluation]:
            return evaluator(
                objective, self.run.prepare_eval, self.run.dataset.test, settings.batch_size, used
            )

        if not labels:
            labels = ["/".join(folder.parts[-2:]) if len(runs) > 1 else "" for _, folder in runs]
        self.logs = [
            RunLog(
                run,
                folder,
                evaluate(_evaluated(run)),
                label=label,
                callbacks=() if index else callbacks,
            )
            for index, ((run, folder), label) in enumerate(zip(runs, labels, strict=True))
        ]
        self.train_steps = devices.map_train(
            functools.partial(
                step.train_steps,
                step=step.train_together,
                students=tuple(run.student_spec for run, _ in runs),
                prepare=self.run.prepare_train,
                accumulation=settings.accumulation,
                axis_name=devices.AXIS_NAME,
            ),
            used,
        )

    def train(self) -> list[Progress]:
        """Run the remaining epochs.

        Returns:
          Progress counters of each run.

        Raises:
          at_jax.loop.Interrupted: after everything is saved.
          at_jax.loop.NonFinite: naming the step and the term.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(self._profiler.close)  # also of a run that fails
            for each in self.logs:
                stack.enter_context(each)
            stack.callback(self._stream.close)
            interrupted = stack.enter_context(interruptible())
            states = restore_all(self.logs)
            first = int(states[0].step)
            if first < self.run.steps or any(each.is_unevaluated(first) for each in self.logs):
                if first:
                    log(f"Resuming after step {first} of {self.run.steps}")
                self._epochs(states, first, interrupted)
            for each in self.logs:
                each.checkpoints.wait()
            # Also for a signal during the last checkpoint: after a teacher, the student must not start.
            if number := processes.largest(interrupted()):
                raise self._interrupted(self.run.steps, number)
        return [each.progress for each in self.logs]

    def _epochs(
        self, states: tuple[TrainState, ...], first: int, interrupted: Callable[[], int]
    ) -> None:
        run = self.run
        # The constant must not change: runs would not resume exactly.
        key = jax.random.fold_in(jax.random.key(order_seed(run.settings)), 1)
        # All runs with a teacher have the same one.
        frozen = next((each.run.teacher.variables for each in self.logs if each.run.teacher), None)
        states, frozen, key = devices.replicate((states, frozen, key), self.devices)
        origin = provenance.origin(devices.describe(self.devices), len(self.logs))
        for each in self.logs:
            each.open(first, origin)
        if any(each.is_unevaluated(first) for each in self.logs):
            self._end_epoch(states, first // run.steps_per_epoch, frozen)
        for epoch in range(first // run.steps_per_epoch, run.settings.epochs):
            end = (epoch + 1) * run.steps_per_epoch
            states = self.advance(states, end, frozen, key, interrupted)
            if int(states[0].step) < end:
                self._stop(states, interrupted())
            self._end_epoch(states, epoch + 1, frozen)
            if number := processes.largest(interrupted()):
                self._stop(states, number)

    def _end_epoch(self, states: tuple[TrainState, ...], epoch: int, frozen: Any) -> None:
        pairs = list(zip(self.logs, states, strict=True))
        # After an evaluation that failed for one run, others may have this epoch already.
        step = epoch * self.run.steps_per_epoch
        left = [(each, state) for each, state in pairs if each.is_unevaluated(step)]
        with saved_on_error(self.logs, states):
            due = [each.end_epoch(state, epoch, frozen) for each, state in left]
        if any(due) or len(left) < len(pairs):
            # All or none, and the previous checkpoints are on disk: a kill leaves a step that all have.
            if len(self.logs) > 1:
                for each in self.logs:
                    each.checkpoints.wait()
            for each, state in pairs:
                each.save_epoch(state)
        call_callbacks([each for each, _ in left], self.logs, states)

    def advance(
        self,
        states: tuple[TrainState, ...],
        end: int,
        frozen: Any,
        key: jax.Array,
        interrupted: Callable[[], int],
    ) -> tuple[TrainState, ...]:
        """Train up to step ``end`` or an interrupt. The host runs ahead of the device by a few calls."""
        now, images = int(states[0].step), 0
        pending: list[tuple[int, Any]] = []
        clock = fetched = time.monotonic()
        # Several processes agree to stop at the end of an epoch.
        while now < end and (processes.is_multiprocess() or not interrupted()):
            steps = self.run.batches.equal_steps(now, min(self._per_call, end - now))
            shape = steps, self.run.batches.size(now)
            self._profiler.before(now, steps, states)
            if shape not in self._compiled:
                jax.block_until_ready(states)  # queued work is not part of compiling
            if not self._compiled:
                log("Compiling the training step (this may take minutes) ...")
            began = time.monotonic()
            with saved_on_error(self.logs, states, lambda: self._fetch(pending, keep=0)):
                batches = devices.shard(self.batches(now, steps), self._local_device_count, axis=1)
            states, measured = self.train_steps(states, frozen, key, batches)
            now += steps
            pending.append((now, measured))
            if shape in self._compiled:
                images += steps * shape[1]
            else:
                # The first call of a shape compiles; its speed is not measured.
                jax.block_until_ready(measured)
                self._compiled.add(shape)
                clock += time.monotonic() - began
            if len(pending) > devices.RUN_AHEAD:
                jax.block_until_ready(pending[-1 - devices.RUN_AHEAD][1])
            if self._should_fetch(pending, time.monotonic() - fetched):
                self._fetch(pending, keep=devices.RUN_AHEAD)
                fetched = time.monotonic()
        self._fetch(pending, keep=0)
        seconds = time.monotonic() - clock
        for each in self.logs:
            each.progress.images += images
            each.progress.seconds += seconds
        return states

    def batches(self, first: int, steps: int) -> dict[str, np.ndarray]:
        """Stack this process's part of the batches of some steps: arrays (steps, b, ...)."""
        batches = [self._stream.batch(s) for s in range(first, first + steps)]
        if steps == 1:
            return {name: x[None] for name, x in batches[0].items()}
        return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}

    def _should_fetch(self, pending: list[tuple[int, Any]], seconds: float) -> bool:
        if processes.is_multiprocess():
            return len(pending) >= _CALLS_BETWEEN_FETCHES
        return seconds > _SECONDS_BETWEEN_FETCHES

    def _fetch(self, pending: list[tuple[int, Any]], keep: int) -> None:
        """Wait for all calls but the last ``keep``, and record their metrics."""
        ready, pending[:] = pending[: len(pending) - keep], pending[len(pending) - keep :]
        for done, measured in ready:
            for each, of_run in zip(self.logs, jax.device_get(measured), strict=True):
                each.collect(done, of_run)

    def _stop(self, states: tuple[TrainState, ...], number: int) -> None:
        for each, state in zip(self.logs, states, strict=True):
            each.save_unless_saved(state)
        raise self._interrupted(int(states[0].step), number)

    def _interrupted(self, step: int, number: int) -> Interrupted:
        others = f" and {len(self.logs) - 1} more" if len(self.logs) > 1 else ""
        return Interrupted(
            f"Stopped after step {step} of {self.run.steps}, saved in {self.logs[0].workdir}{others}: "
            "run the same command to resume",
            number,
        )


def _evaluated(run: Run) -> Objective:
    """Objective of the evaluation: the student alone, unless a term changes its forward pass."""
    return run.objective if run.evaluates_with_teacher else Objective(run.objective.student)
