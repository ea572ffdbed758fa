"""Progress of a run: a bar on a terminal, one line per epoch, and TensorBoard events."""

import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

from at_jax.distributed import processes
from at_jax.training import metrics
from at_jax.training.console import duration, log
from at_jax.training.tensorboard import EventFile, is_available

__all__ = ["ProgressReport"]

_BURST = 0.1  # seconds that reports of steps fetched together take at most
# An epoch prints one line, but not more often than this.
_SECONDS_BETWEEN_LINES = 5.0


class ProgressReport:
    """Progress bar on a terminal, one line per epoch, and TensorBoard events; a context manager.

    With several processes only process 0 prints and writes.

    Args:
      workdir: directory of the event file.
      name: network name, shown at the bar.
      evaluated_on: name of the evaluated part of the data set, for example ``"test"``.
      steps: length of the training run, in steps.
      first: steps done before this start.
      tensorboard: write an event file.
      label: prefix of the lines, where several runs share a console.
      config_text: config of the run, for TensorBoard.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        name: str,
        evaluated_on: str,
        steps: int,
        first: int,
        tensorboard: bool,
        label: str = "",
        config_text: str = "",
    ):
        from tqdm import tqdm

        self._steps, self._evaluated_on, self._label = steps, evaluated_on, label
        self._timer, self._last_line = _StepTimer(), -_SECONDS_BETWEEN_LINES
        title = f"{name} {label}".strip()
        self._bar = tqdm(
            total=steps,
            initial=first,
            desc=title,
            unit="step",
            disable=None if processes.is_primary() and sys.stderr is not None else True,
            dynamic_ncols=True,
        )
        self._events: EventFile | None = None
        if tensorboard and is_available():
            self._events = EventFile(workdir)
            self._events.start(first, config_text)
        elif tensorboard:
            log("No TensorBoard events: pip install tensorboardX, or set runtime.tensorboard=False")

    def __enter__(self) -> "ProgressReport":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
        if self._events is not None:
            self._events.close()

    def steps(self, done: int, loss: float) -> None:
        """Move the bar to ``done`` steps and show the loss."""
        self._timer.steps(done)
        self._bar.set_postfix(loss=f"{loss:.3g}", refresh=False)
        self._bar.update(done - self._bar.n if not self._bar.disable else 0)

    def epoch(self, line: Mapping[str, Any], epochs: int) -> None:
        """Print the metrics of an epoch and write them as events.

        Args:
          line: metrics of the epoch, as in metrics.jsonl.
          epochs: length of the training run, in epochs.
        """
        if self._events is not None:
            self._events.scalars(line)
        seconds_left = self._timer.end_epoch(line["step"], self._steps)
        now = time.monotonic()
        if now - self._last_line < _SECONDS_BETWEEN_LINES and line["epoch"] != epochs:
            return
        self._last_line = now
        speed = line["images_per_second"]
        parts = (
            self._label,
            f"epoch {line['epoch']}/{epochs}",
            f"loss {line['loss']:.4g}",
            f"train error {line['train_error']:.2f} %",
            f"{self._evaluated_on} error {metrics.shown(line)}",
            f"{speed:.0f} images/s" if speed else "compiling",
            "" if seconds_left is None else f"ETA {duration(seconds_left)}",
        )
        log("  ".join(part for part in parts if part))


class _StepTimer:
    """Estimates the remaining time from completed steps, without the time for compilation.

    The first epoch is measured from its first reported step to its last, because the evaluation at its end
    is compiled too. Later epochs are measured from the end of the first, evaluation included.
    """

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None  # time, steps done
        self._latest: tuple[float, int] | None = None
        self._is_first_epoch = True

    def steps(self, done: int) -> None:
        self._latest = (time.monotonic(), done)
        # Steps are reported in bursts: time is counted from the end of the first one.
        if self._start is None or self._latest[0] - self._start[0] < _BURST:
            self._start = self._latest

    def end_epoch(self, done: int, total: int) -> float | None:
        """Seconds until step ``total``; None while too little was measured."""
        now = (time.monotonic(), done)
        start, latest = self._start or now, self._latest or now
        if self._is_first_epoch:
            self._start, self._is_first_epoch = now, False
        else:
            latest = now
        if done >= total:
            return 0.0
        seconds, measured = latest[0] - start[0], latest[1] - start[1]
        # The steps of a short first epoch are all reported at its end, in no time.
        return seconds / measured * (total - done) if measured > 0 and seconds > 0.1 else None
