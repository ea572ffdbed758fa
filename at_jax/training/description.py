"""Description printed before the first step: network, transfer points, notes, data, length."""

from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax.distributed import devices, huge_pages
from at_jax.errors import listed
from at_jax.intermediates import initialize
from at_jax.training.components.datasets import streaming_line
from at_jax.training.console import counted, log
from at_jax.training.setup import Run
from at_jax.training.state import parameter_count

__all__ = ["log_lines", "network_table"]


def log_lines(run: Run, used: tuple[jax.Device, ...]) -> None:
    """Print the description of a run that is trained on some devices."""
    log(network_table(run.objective.student, run.dataset.image_shape))
    for line in (*_on_networks(run), *_on_config(run), *_on_data(run), _length(run, used)):
        log(f"  {line}")


def _on_networks(run: Run) -> Iterator[str]:
    for s, t in run.objective.points:
        yield f"transfer: student {s} {'x'.join(map(str, run.taps[s].shape[1:]))} <- teacher {t}"
    if run.teacher is not None:
        described = run.teacher.description
        name = described and (described["name"] or type(run.teacher.module).__name__)
        found = [str(each) for each in (name, run.objective.teacher_images) if each]
        if found:
            yield f"teacher: {', '.join(found)}"
    if run.initial:
        yield f"init: {run.initial.note}"
    if run.settings.init.freeze:
        names = ", ".join(run.settings.init.freeze)
        start = "" if run.initial else ", at random values: init.weights is empty"
        yield f"frozen: {names} ({run.frozen:,} of {run.parameters:,} parameters{start})"
    if run.other_classes:
        yield f"note: the teacher has different classes ({run.other_classes}), so its error is not defined"


def _on_config(run: Run) -> Iterator[str]:
    settings, optimizer = run.settings, run.settings.optimizer
    if not settings.runtime.huge_pages and huge_pages.was_restarted():
        yield f"note: {huge_pages.KEY} is read from the command line only: huge pages are in use"
    # A field of this name may hold anything; a dtype compares equal to its scalar type.
    has_dtype = getattr(run.objective.student, "dtype", None) == jnp.dtype(settings.dtype)
    if settings.dtype != "float32" and not run.description["name"] and not has_dtype:
        yield (
            f"note: dtype={settings.dtype} is that of networks of at_jax: {run.name} computes in its own"
        )
    for term in run.objective.terms:
        section = settings.terms.get(term.name)
        # Options of the config that are neither those of the object nor the defaults.
        if (
            section
            and type(section.term) is type(term)
            and section.term not in (term, type(term)())
        ):
            yield f"note: terms= has {term}; the config's {section.term} is not used"
    late = [epoch for epoch in optimizer.drop_epochs if epoch >= settings.epochs]
    if late and optimizer.schedule == "steps" and run.reads_rate:
        yield (
            f"note: the run ends after {counted(settings.epochs, 'epoch')}, before the learning rate drops "
            f"at epoch {listed(late)} (optimizer.drop_epochs)"
        )


def _on_data(run: Run) -> Iterator[str]:
    dataset = run.dataset
    yield (
        f"{dataset.name}: {len(dataset.train):,} training and {len(dataset.test):,} "
        f"{dataset.evaluated_on} images of {'x'.join(map(str, dataset.image_shape))}, "
        f"{dataset.num_classes} classes"
    )
    yield from (f"note: {note}" for note in dataset.notes)
    if line := streaming_line(run.batches, run.settings.data):
        yield line


def _length(run: Run, used: tuple[jax.Device, ...]) -> str:
    settings, last = run.settings, run.batches.last_size
    rest = f", the last with {counted(last, 'image')}," if last < settings.batch_size else ""
    idle = devices.idle(used) if not settings.runtime.devices else 0
    unused = f" ({idle} more cannot divide batch_size={settings.batch_size} evenly)" if idle else ""
    steps = f"{counted(settings.epochs, 'epoch')} of {counted(run.steps_per_epoch, 'step')}{rest}"
    return f"{steps} on {devices.describe(used)}{unused}"


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
