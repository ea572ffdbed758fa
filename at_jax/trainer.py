"""The epochs of one network, or of several that share a teacher: dispatch steps. Reads the clock."""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from at_jax import parallel, processes, provenance, state, step
from at_jax.evaluation import evaluator
from at_jax.experiment import Experiment
from at_jax.interrupt import Interrupted, interruptible
from at_jax.ledger import Ledger, NonFinite, by_module, restore_all
from at_jax.profiling import Profiler
from at_jax.report import say
from at_jax.resume import Progress
from at_jax.settings import order_seed

__all__ = ["Interrupted", "NonFinite", "Run", "Trainer"]

# Metrics stay on the device meanwhile: fetching them at every step would stall a fast one.
_SECONDS_BETWEEN_LOOKS = 0.5
# Among several processes a clock would not do: what one sees and stops at, all must see.
_DISPATCHES_BETWEEN_LOOKS = 50

# One run of a trainer: its config, its workdir, its pieces.
Run = tuple[ml_collections.ConfigDict, pathlib.Path, Experiment]


class Trainer:
    """Trains networks, each in its workdir; started again it goes on from the last whole checkpoints.

    Args:
      runs: one, or several of one teacher, of one order of the same images and of one length.
      devices: to spread a batch over.
      profile: write a profiler trace of some steps, of the first run's name.
    """

    def __init__(
        self, runs: Sequence[Run], devices: tuple[jax.Device, ...], *, profile: bool = False
    ):
        self.devices = devices
        self.config, workdir, self.run = runs[0]  # what all have in common is read from the first
        self._local_devices, self._several = parallel.local_count(devices), processes.several()
        self._profiler = Profiler(workdir / "profile", wanted=profile)
        self._compiled: set[int] = set()  # lengths of dispatch
        self._per_dispatch = (
            self.config.runtime.steps_per_dispatch or parallel.default_steps_per_dispatch(devices)
        )
        evaluators = by_module(
            [run for _, _, run in runs],
            lambda run: evaluator(
                run.objective.student,
                run.prepare_eval,
                run.dataset.test,
                self.config.batch_size,
                devices,
            ),
        )
        self.ledgers = [
            Ledger(
                config,
                folder,
                run,
                evaluate,
                label="/".join(folder.parts[-2:]) if len(runs) > 1 else "",
            )
            for (config, folder, run), evaluate in zip(runs, evaluators, strict=True)
        ]
        self.train_steps = parallel.map_train(
            functools.partial(
                step.train_steps,
                step=step.train_together,
                learners=tuple(
                    step.Learner(run.objective, run.optimizer, run.weights) for _, _, run in runs
                ),
                prepare=self.run.prepare_train,
                accumulation=self.config.accumulation,
                axis_name=parallel.AXIS_NAME,
            ),
            devices,
        )

    def train(self) -> list[Progress]:
        """Do the epochs that are left.

        Returns:
          For each run its seconds of training, all starts together, and where it was trained.

        Raises:
          Interrupted: once all is saved.
          NonFinite: naming the step and the term.
        """
        with contextlib.ExitStack() as stack:
            for ledger in self.ledgers:
                stack.enter_context(ledger)
            interrupted = stack.enter_context(interruptible())
            states = restore_all(self.ledgers)
            first = int(states[0].step)
            if first < self.run.steps:
                if first:
                    say(f"Resuming after step {first} of {self.run.steps}")
                self._epochs(states, first, interrupted)
            for ledger in self.ledgers:
                ledger.checkpoints.wait()
        self._profiler.close()
        return [ledger.progress for ledger in self.ledgers]

    def _epochs(
        self, states: tuple[state.TrainState, ...], first: int, interrupted: Callable[[], bool]
    ) -> None:
        run = self.run
        # 0 was the initialisation
        key = jax.random.fold_in(jax.random.key(order_seed(self.config)), 1)
        # Any that has the teacher: it is the same one for all.
        teacher = next((each.run.teacher for each in self.ledgers if each.run.teacher), None)
        frozen = teacher.variables if teacher else None
        states, frozen, key = parallel.replicate((states, frozen, key), self.devices)
        origin = {
            "trained_together": len(self.ledgers),
            "device": parallel.describe(self.devices),
            "versions": provenance.versions(),
            "commit": provenance.commit(),
        }
        for ledger in self.ledgers:
            ledger.open(first, origin)
        for epoch in range(first // run.steps_per_epoch, self.config.epochs):
            end = (epoch + 1) * run.steps_per_epoch
            states = self.advance(states, end, frozen, key, interrupted)
            if int(states[0].step) < end:
                self._stop(states)
            self._end_epoch(states, epoch + 1)
            if processes.any_of(interrupted()):
                # After the last epoch too: a teacher's end must not begin its student.
                self._stop(states)

    def _end_epoch(self, states: tuple[state.TrainState, ...], epoch: int) -> None:
        pairs = list(zip(self.ledgers, states, strict=True))
        due = [ledger.end_epoch(each, epoch) for ledger, each in pairs]
        if any(due):
            # All or none, and the last round of all is on disk: a kill leaves a step that all have.
            if len(self.ledgers) > 1:
                for ledger in self.ledgers:
                    ledger.checkpoints.wait()
            for ledger, each in pairs:
                ledger.save_epoch(each)

    def advance(
        self,
        states: tuple[state.TrainState, ...],
        end: int,
        frozen: Any,
        key: jax.Array,
        interrupted: Callable[[], bool],
    ) -> tuple[state.TrainState, ...]:
        """Step up to `end`, or to an interrupt. The host runs ahead of the device, but not far."""
        now, images = int(states[0].step), 0
        pending: list[tuple[int, Any]] = []
        clock = shown = time.monotonic()
        # Several processes agree to stop at the end of an epoch.
        while now < end and (self._several or not interrupted()):
            steps = min(self._per_dispatch, end - now)
            self._profiler.before(now, steps, states)
            if steps not in self._compiled:
                jax.block_until_ready(states)  # what is queued is not part of compiling
            began = time.monotonic()
            batches = parallel.shard(self.batches(now, steps), self._local_devices, axis=1)
            states, measured = self.train_steps(states, frozen, key, batches)
            now += steps
            pending.append((now, measured))
            if steps in self._compiled:
                images += steps * self.config.batch_size
            else:
                # The first dispatch of a length compiles; it is no measure of speed.
                jax.block_until_ready(measured)
                self._compiled.add(steps)
                clock += time.monotonic() - began
            if len(pending) > parallel.RUN_AHEAD:
                jax.block_until_ready(pending[-1 - parallel.RUN_AHEAD][1])
            if self._is_time_to_look(pending, time.monotonic() - shown):
                self._collect(pending, keep=parallel.RUN_AHEAD)
                shown = time.monotonic()
        self._collect(pending, keep=0)
        seconds = time.monotonic() - clock
        for ledger in self.ledgers:
            ledger.progress.images += images
            ledger.progress.seconds += seconds
        return states

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

    def _collect(self, pending: list[tuple[int, Any]], keep: int) -> None:
        """Wait for all dispatches but the last `keep`, and hand their metrics to the ledgers."""
        ready, pending[:] = pending[: len(pending) - keep], pending[len(pending) - keep :]
        for done, measured in ready:
            for ledger, each in zip(self.ledgers, jax.device_get(measured), strict=True):
                ledger.collect(done, each)

    def _stop(self, states: tuple[state.TrainState, ...]) -> None:
        for ledger, each in zip(self.ledgers, states, strict=True):
            ledger.save_as_it_is(each)
        others = len(self.ledgers) - 1
        raise Interrupted(
            f"Stopped after step {int(states[0].step)} of {self.run.steps}, saved in "
            f"{self.ledgers[0].workdir}{f' and {others} more' if others else ''}: "
            "the same command goes on from there"
        )
