"""Console output of a run: layer table, progress bar, one line per epoch."""

import contextlib
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax.distributed import processes
from at_jax.intermediates import initialize
from at_jax.training import metrics
from at_jax.training.tensorboard import EventFile, is_available

__all__ = ["ProgressReport", "counted", "duration", "log", "network_table", "parameter_count"]

_BURST = 0.1  # seconds that reports of steps fetched together take at most
# An epoch prints one line, but not more often than this.
_SECONDS_BETWEEN_LINES = 5.0


def log(text: str, *, is_note: bool = False) -> None:
    """Print a line in process 0, above the progress bar if one is shown, and flush it.

    Args:
      text: without the end of the line.
      is_note: print to stderr, so that a program that reads results from stdout does not see it.
    """
    if not processes.is_primary():
        return
    from tqdm import tqdm

    file = sys.stderr if is_note else sys.stdout
    # Training continues without a reader: stdout may be closed, or its device full or gone.
    if file is not None:
        with contextlib.suppress(OSError, ValueError):
            tqdm.write(text, file=file)
            file.flush()


def duration(seconds: float) -> str:
    """Format seconds as ``m:ss`` or ``h:mm:ss``.

    >>> duration(75), duration(3675)
    ('1:15', '1:01:15')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def counted(count: int, noun: str) -> str:
    """Format a number with its noun, in the plural unless it is 1.

    >>> counted(1, "epoch"), counted(1_500, "image")
    ('1 epoch', '1,500 images')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def parameter_count(params: Any) -> int:
    """Total number of elements in a pytree of arrays.

    >>> import numpy as np
    >>> parameter_count({"kernel": np.zeros((3, 4)), "bias": np.zeros(4)})
    16
    """
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def network_table(module: nn.Module, image_shape: tuple[int, int, int]) -> str:
    """Format the top-level layers of a network, one per line: name, type, output shape, parameters.

    Shorter than ``module.tabulate``, which lists every submodule.

    Args:
      module: network called as ``module(images, train=False)``.
      image_shape: (H, W, C).

    Returns:
      Several lines of text; the last holds the total number of parameters.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    rows: list[tuple[str, str, str]] = []

    def record(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        result = call(*args, **kwargs)
        if len(context.module.path) == 1 and context.method_name == "__call__":
            shapes = [x.shape[1:] for x in jax.tree.leaves(result) if hasattr(x, "shape")]
            size = "x".join(str(n) for shape in shapes[:1] for n in shape)
            rows.append((context.module.path[0], type(context.module).__name__, size))
        return result

    def init(key: jax.Array, images: jax.Array) -> Any:
        with nn.intercept_methods(record):
            return initialize(module, key, images)

    params = jax.eval_shape(init, jax.random.key(0), images).get("params", {})
    lines = [f"  {'layer':<20} {'type':<18} {'output':>16} {'parameters':>12}"]
    for name, kind, size in rows:
        count = parameter_count(params.get(name, {}))
        lines.append(f"  {name:<20} {kind:<18} {size:>16} {count:>12,}")
    lines.append(f"  {'total':<20} {'':<18} {'':>16} {parameter_count(params):>12,}")
    return "\n".join(lines)


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
