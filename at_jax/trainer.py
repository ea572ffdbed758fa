"""The epochs of one network: dispatch steps, collect metrics, evaluate, save. Reads the clock."""

import contextlib
import dataclasses
import functools
import math
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import serialization

from at_jax import data, metrics, parallel, run_directory, state, step
from at_jax.checkpoint import Checkpoints
from at_jax.experiment import Experiment
from at_jax.report import Report, say

# A profiler trace takes these steps of a start: late enough to be compiled, few enough to be read.
_PROFILED = (10, 20)


class Interrupted(Exception):
    """A signal asked the run to stop, and it was saved first."""


class NonFinite(Exception):
    """A loss or a parameter is no longer a finite number."""


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C (and a scheduler's SIGTERM) into a request that the loop sees after its step.

    Yields:
      A function that says whether one came. A second Ctrl-C stops at once.
    """
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set  # only the main thread may set handlers
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in signals]

    def handler(number, frame):
        came.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        say("Stopping after this step; once more to stop at once, unsaved.")

    for number in signals:
        signal.signal(number, handler)
    try:
        yield came.is_set
    finally:
        for number, old in zip(signals, before, strict=True):
            signal.signal(number, old)


def evaluator(module, prepare, split, batch_size, devices) -> Callable[[Any], float]:
    """Compile the evaluation of a network on a split.

    Args:
      module: the network.
      prepare: normalisation.
      split: every example counts exactly once.
      batch_size: images at a time, a multiple of the devices.
      devices: to spread them over.

    Returns:
      A function from replicated variables to the error in percent.
    """
    mapped = parallel.map_eval(
        functools.partial(
            step.eval_step, module=module, prepare=prepare, axis_name=parallel.AXIS_NAME
        ),
        devices,
    )

    def measure(variables: Any) -> float:
        parts, pending = [], []
        for batch in data.eval_batches(split, batch_size):
            pending.append(mapped(variables, parallel.shard(batch, len(devices))))
            if len(pending) == parallel.MAX_QUEUED_STEPS:
                parts += jax.device_get(pending)
                pending = []
        return 100 * metrics.means(metrics.total(parts + jax.device_get(pending)))["error"]

    return measure


@dataclasses.dataclass
class Progress:
    """What a run knows of its past beside its state; saved with every checkpoint, as JSON.

    Attributes:
      totals: metric -> (sum, count) of the epoch so far.
      images: trained on in the epoch so far, without the dispatch that compiled.
      seconds: that these took.
      wall_seconds: of training so far, all starts together.
    """

    totals: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0
    wall_seconds: float = 0.0


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
        self._progress = Progress()
        self._profile, self._tracing = profile, False
        self._since = time.monotonic()
        self._compiled = False
        self._per_dispatch = min(
            config.runtime.steps_per_dispatch or parallel.default_steps_per_dispatch(devices),
            parallel.MAX_QUEUED_STEPS,
        )
        self._evaluate = evaluator(
            run.objective.student, run.prepare_eval, run.dataset.test, config.batch_size, devices
        )
        self._train_steps = parallel.map_train(
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
            train_state = self._restore(checkpoints)
            first = int(train_state.step)
            run_directory.keep_metrics(self.workdir, first)
            if first < self.run.steps:
                self._epochs(train_state, first, checkpoints, interrupted)
            checkpoints.wait()
        return self._progress.wall_seconds

    def _restore(self, checkpoints: Checkpoints) -> state.TrainState:
        run = self.run
        key = jax.random.key(self.config.seed)
        fresh = state.create(run.objective, run.optimizer, key, run.dataset.image_shape, run.taps)
        restored = checkpoints.latest(("params", "batch_stats", "training"))
        if restored is None:
            return fresh
        checkpoints.forget_after(restored.step)
        if restored.step < run.steps:
            say(f"Resuming after step {restored.step} of {run.steps}")
        self._progress = Progress(**restored.meta["progress"])
        training = restored.trees["training"]
        return serialization.from_state_dict(
            fresh,
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

    def _epochs(self, train_state, first: int, checkpoints, interrupted) -> None:
        run, config = self.run, self.config
        key = jax.random.fold_in(jax.random.key(config.seed), 1)  # 0 was the initialisation
        frozen = run.teacher.variables if run.teacher else None
        train_state, frozen, key = parallel.replicate((train_state, frozen, key), self.devices)
        lines = run_directory.read_metrics(self.workdir)
        best = min((line["test_error"] for line in lines), default=math.inf)
        with Report(
            self.workdir,
            name=config.student,
            evaluated_on=run.dataset.evaluated_on,
            steps=run.steps,
            first=first,
            tensorboard=config.runtime.tensorboard,
        ) as report:
            for epoch in range(first // run.steps_per_epoch, config.epochs):
                end = (epoch + 1) * run.steps_per_epoch
                train_state = self._steps(train_state, end, frozen, key, report, interrupted)
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
                if interrupted() and not is_last:
                    self._stop(train_state, checkpoints)
        self._trace(math.inf)

    def _steps(self, train_state, end: int, frozen, key, report, interrupted) -> state.TrainState:
        """Steps up to `end`, or to an interrupt. The host runs ahead of the device, but not far."""
        now = int(train_state.step)
        pending: list[tuple[int, Any]] = []
        clock = time.monotonic()
        while now < end and not interrupted():
            self._trace(now)
            steps = min(self._per_dispatch, end - now)
            batches = parallel.shard(self._batches(now, steps), len(self.devices), axis=1)
            train_state, measured = self._train_steps(train_state, frozen, key, batches)
            now += steps
            pending.append((now, measured))
            if self._compiled:
                self._progress.images += steps * self.config.batch_size
            else:
                # The first dispatch compiles; it is no measure of speed.
                jax.block_until_ready(measured)
                self._compiled, clock = True, time.monotonic()
            if now - pending[0][0] + 2 * steps > parallel.MAX_QUEUED_STEPS:
                self._collect(pending, report, keep=1)
        self._collect(pending, report, keep=0)
        self._progress.seconds += time.monotonic() - clock
        return train_state

    def _batches(self, first: int, steps: int) -> dict[str, np.ndarray]:
        batches = [self.run.batches.batch(s) for s in range(first, first + steps)]
        if steps == 1:
            return {name: x[None] for name, x in batches[0].items()}
        return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}

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
        betas = [float(schedule(step_ - 1)) for schedule in self.run.weights.values()]
        return {
            "epoch": epoch,
            "step": step_,
            **means,
            "learning_rate": float(self.run.learning_rate(step_ - 1)),
            "beta": betas[0] if betas else 0.0,
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
        checkpoints.save(
            int(host.step),
            {
                "params": host.params["student"],
                "batch_stats": host.batch_stats,
                "training": {"adapter": host.params["adapter"], "opt_state": host.opt_state},
            },
            {"model": self.run.description, "progress": dataclasses.asdict(self._progress)},
            test_error,
        )

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

    def _trace(self, now: float) -> None:
        """Start or stop the profiler's trace before the step after `now`."""
        if self._profile and not self._tracing and now >= _PROFILED[0] and self._compiled:
            self._profile, self._tracing = False, True
            jax.profiler.start_trace(str(self.workdir / "profile"))
        elif self._tracing and now >= _PROFILED[1]:
            self._tracing = False
            jax.profiler.stop_trace()
            say(f"Profiler trace written to {self.workdir / 'profile'}")
        elif self._profile and now == math.inf:
            say(f"No profiler trace: the run has no step {_PROFILED[0]} left to trace")
