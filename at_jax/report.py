"""What a person sees of a run while it goes: the table at the start, the bar, the epochs, TensorBoard."""

import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax import processes

# An epoch gets a line, above the bar where there is one, but no more than one in so many seconds.
_SECONDS_BETWEEN_LINES = 5.0


def network_table(module: nn.Module, image_shape: tuple[int, int, int]) -> str:
    """The layers of a network, a line each: name, kind, output shape, parameters.

    Args:
      module: the network.
      image_shape: (H, W, C).

    Returns:
      Lines of text.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    rows = []

    def record(call, args, kwargs, context):
        result = call(*args, **kwargs)
        if len(context.module.path) == 1 and context.method_name == "__call__":
            shapes = [x.shape[1:] for x in jax.tree.leaves(result) if hasattr(x, "shape")]
            rows.append((context.module.path[0], type(context.module).__name__, shapes[:1]))
        return result

    def init(key, images):
        with nn.intercept_methods(record):
            return module.init(key, images, train=False)

    params = jax.eval_shape(init, jax.random.key(0), images)["params"]
    lines = [f"  {'layer':<20} {'kind':<18} {'output':>16} {'parameters':>12}"]
    for name, kind, shapes in rows:
        size = "x".join(str(n) for shape in shapes for n in shape)
        lines.append(f"  {name:<20} {kind:<18} {size:>16} {count(params.get(name, {})):>12,}")
    return "\n".join([*lines, f"  {'':<20} {'':<18} {'in all':>16} {count(params):>12,}"])


def count(params: Any) -> int:
    """How many numbers a tree of parameters holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def duration(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``.

    >>> duration(75), duration(3675)
    ('1:15', '1:01:15')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Report:
    """A progress bar on a terminal, plain lines everywhere, and TensorBoard. Use it in a ``with``.

    Of several processes only the first shows anything.
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
    ):
        from tqdm import tqdm

        self._started, self._first, self._steps = time.monotonic(), first, steps
        self._evaluated_on, self._label = evaluated_on, label
        self._last_line = -_SECONDS_BETWEEN_LINES
        self._bar = tqdm(
            total=steps,
            initial=first,
            desc=f"{name} {label}".strip(),
            unit="step",
            disable=None if processes.is_primary() else True,
            dynamic_ncols=True,
        )
        self._events = None
        if tensorboard and processes.is_primary():
            try:
                from tensorboardX import SummaryWriter
            except ModuleNotFoundError:
                say(
                    "no TensorBoard events: pip install tensorboardX, or --config.runtime.tensorboard=False"
                )
            else:
                self._events = SummaryWriter(str(workdir), purge_step=first + 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()
        if self._events is not None:
            self._events.close()

    def steps(self, done: int, loss: float) -> None:
        """Move the bar to ``done`` steps."""
        self._bar.set_postfix(loss=f"{loss:.3g}", refresh=False)
        self._bar.update(done - self._bar.n if not self._bar.disable else 0)

    def epoch(self, line: Mapping[str, Any], epochs: int) -> None:
        """Show the metrics of an epoch, and write them as events."""
        if self._events is not None:
            for name, value in line.items():
                if name not in ("epoch", "step") and value is not None:
                    self._events.add_scalar(name, value, line["step"])
            self._events.flush()
        now, done = time.monotonic(), line["step"]
        if now - self._last_line >= _SECONDS_BETWEEN_LINES or line["epoch"] == epochs:
            self._last_line = now
            left = (now - self._started) / max(done - self._first, 1) * (self._steps - done)
            speed = line["images_per_second"]
            parts = (
                *filter(None, [self._label]),
                f"epoch {line['epoch']}/{epochs}",
                f"loss {line['loss']:.4g}",
                f"train error {line['train_error']:.2f} %",
                f"{self._evaluated_on} error {line['test_error']:.2f} %",
                f"{speed:.0f} images/s" if speed else "compiling",
                f"{duration(left)} left",
            )
            say("  ".join(parts))


def say(text: str) -> None:
    """Print a line at once, beside a progress bar or not; process 0 speaks for all."""
    if not processes.is_primary():
        return
    from tqdm import tqdm

    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def is_ours(error: BaseException, *files: str) -> bool:
    """Whether at_jax, or one of some files, raised an error: those messages are made for people.

    Args:
      error: caught.
      *files: paths of programs that raise such errors too.
    """
    frame = error.__traceback__
    while frame.tb_next is not None:
        frame = frame.tb_next
    raised_in = pathlib.Path(frame.tb_frame.f_code.co_filename).resolve()
    package = pathlib.Path(__file__).resolve().parent
    return package in raised_in.parents or raised_in in {pathlib.Path(f).resolve() for f in files}
