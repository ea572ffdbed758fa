"""Entry points of the trainer: ``train_and_evaluate(config, workdir)``."""

import copy
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from at_jax import data, paths
from at_jax.distributed import devices, processes
from at_jax.errors import UserError
from at_jax.figures import run_figures
from at_jax.objective import Objective
from at_jax.terms import Term
from at_jax.training import compilation_cache, programs, tensorboard
from at_jax.training.components import networks
from at_jax.training.components.arguments import Arguments, Callback
from at_jax.training.components.datasets import kept_in_memory, load_dataset
from at_jax.training.components.optimizers import OptimizerFactory
from at_jax.training.config import ConfigDict, check_together, settings_of
from at_jax.training.console import log
from at_jax.training.evaluation import check_evaluable, evaluator
from at_jax.training.files import identity, run_files
from at_jax.training.files.storage import StorageError
from at_jax.training.files.workdir import working_in
from at_jax.training.interrupt import Interrupted
from at_jax.training.non_finite import NonFinite
from at_jax.training.preparation import Prepared, prepare, prepare_comparisons
from at_jax.training.profiling import check_can_trace

__all__ = [
    "Interrupted", "NonFinite", "StorageError", "evaluate", "train_and_evaluate", "train_together",
]  # fmt: skip


def train_and_evaluate(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    student: nn.Module | None = None,
    teacher: tuple[nn.Module, Any] | None = None,
    dataset: data.Dataset | None = None,
    optimizer: OptimizerFactory | None = None,
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    terms: Sequence[Term] | Mapping[Term, float | None] | None = None,
    callbacks: Sequence[Callback] = (),
    module: nn.Module | str | None = None,
    profile: bool = False,
) -> dict[str, Any]:
    """Train the student of a config, and first its teacher if there is none yet.

    Each argument replaces a component that the config would build. ``dataset``, ``optimizer`` and
    ``augment`` also apply to a teacher that is trained here. A second call with the same workdir resumes
    the run, or returns the result of a finished run.

    Args:
      config: every key of :func:`at_jax.training.config.default_config`.
      workdir: directory of the run; a local path, or ``gs://BUCKET/PATH``.
      student: a module whose ``__call__`` takes ``(images, train=...)``, ``(B, H, W, C)``, and returns
        logits ``(B, K)``.
      teacher: a module and its variables.
      dataset: see :func:`at_jax.data.from_arrays` and :func:`at_jax.data.from_source`. Pass one that
        :func:`at_jax.data.load` returns to decode the images of several calls once.
      optimizer: function from the learning-rate schedule (step -> rate) to an optax transformation.
      augment: ``augment(key, image) -> image`` for one example ``(H, W, C)`` before normalization.
      terms: of the loss, instead of those in ``config.method``; a mapping gives their weights, None for
        the default.
      callbacks: objects with ``on_epoch(metrics)`` and ``on_end(result)``.
      module: for a teacher checkpoint, or a run that is resumed, with a user-defined module: an instance,
        or ``"package:name"``.
      profile: write a profiler trace of a few steps to ``<workdir>/profile``.

    Returns:
      The content of result.json.

    Raises:
      UserError: for invalid input, before anything compiles, and if another run is active in the workdir.
      StorageError: if the workdir can no longer be written, for example on a full disk.
      Interrupted: after a signal such as Ctrl-C, once everything is saved; ``signal`` is its number.
      NonFinite: naming the step and the term; the last good checkpoint is kept.
    """
    arguments = Arguments(student, teacher, dataset, optimizer, augment, terms, callbacks, module)
    return _train(config, paths.absolute(workdir), arguments, profile)


def _train(
    config: ConfigDict, workdir: pathlib.Path, arguments: Arguments, profile: bool = False
) -> dict[str, Any]:
    check_can_trace(workdir, profile)
    with kept_in_memory(), working_in(workdir) as lock:
        prepared = prepare(config, workdir, arguments, train_teacher=_train)
        others = prepare_comparisons(config, prepared, arguments, lock)
        finished = programs.train_compared([prepared, *others], arguments.callbacks, profile)
        _close(prepared, finished, arguments.callbacks)
    return finished


def _close(
    prepared: Prepared, finished: Mapping[str, Any], callbacks: Sequence[Callback] = ()
) -> None:
    """Draw the figures of a finished run, and call the callbacks."""
    run, workdir = prepared.run, prepared.workdir
    runtime = run.settings.runtime
    if runtime.figures and processes.is_multiprocess():
        # Loading the checkpoint is collective, drawing is not.
        log("No figures with several processes: run the same command in one process to draw them")
    elif runtime.figures:
        attention = workdir / run_figures.ATTENTION
        was_there = attention.exists()
        is_drawn = run_figures.draw(workdir, run, finished)
        if runtime.tensorboard and is_drawn and not was_there and attention.exists():
            tensorboard.write_image(workdir, "eval/attention", attention, run.steps)
    if processes.is_primary():
        for callback in callbacks:
            callback.on_end(copy.deepcopy(finished))
    log(f"Results written to {workdir}")


def train_together(
    runs: Sequence[tuple[ConfigDict, str | pathlib.Path]],
) -> list[dict[str, Any]]:
    """Train several students in one program, which share the images and the teacher's forward pass.

    Each writes the files of a single run, and trains as it would separately on the same order of images.
    Data, networks, terms and optimizers are those of the configs; components of your own need a call of
    :func:`train_and_evaluate` for each run.

    Args:
      runs: config and workdir of each. The configs may differ in student, seed, method, optimizer and
        terms, including their weights; they need the same ``data.order_seed``, and the same finished run
        as ``teacher.checkpoint`` if the method needs a teacher.

    Returns:
      The content of each result.json.

    Raises:
      UserError: if the configs cannot share a program, or for the reasons of :func:`train_and_evaluate`.
      Interrupted, NonFinite: as :func:`train_and_evaluate`; NonFinite has the ``workdir`` of its run.

    Three weights of attention transfer from one teacher::

      runs = []
      for beta in (5.0, 50.0, 500.0):
          config = config_files.load("digits", "method=at")
          config.at.beta = beta
          config.teacher.checkpoint = "runs/digits/teacher"
          runs.append((config, f"runs/at-{beta:g}"))
      results = loop.train_together(runs)
    """
    if not isinstance(runs, Sequence) or not all(
        isinstance(pair, tuple | list) and len(pair) == 2 for pair in runs
    ):
        raise UserError("train_together takes pairs: pass [(config, workdir), ...]")
    check_together([config for config, _ in runs])
    folders = [paths.absolute(folder) for _, folder in runs]
    if len(set(map(paths.resolve, folders))) < len(folders):
        raise UserError("students of one program must have different workdirs: pass one for each")
    with kept_in_memory(), working_in(*folders):
        # All of them before the first is claimed: if one is refused, none is changed.
        for (config, _), folder in zip(runs, folders, strict=True):
            run_files.check(folder, config.to_dict(), {})
        prepared = [
            prepare(config, folder, Arguments(), describe=folder == folders[0])
            for (config, _), folder in zip(runs, folders, strict=True)
        ]
        results = programs.train_divided(prepared)
        for each, finished in zip(prepared, results, strict=True):
            _close(each, finished)
    return results


def evaluate(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    student: nn.Module | None = None,
    dataset: data.Dataset | None = None,
    module: nn.Module | str | None = None,
) -> dict[str, float]:
    """Evaluate the latest and the best checkpoint of a run on its test set.

    The test set is used even if the run held out a validation split.

    Args:
      config: of the run.
      workdir: of the run.
      student: the module, for a run that trained a user-defined one.
      dataset: the data set, for a run that was given one.
      module: instead of ``student``: an instance, or ``"package:name"``.

    Returns:
      ``test_error`` and ``best_test_error`` in percent; with more than ten classes also
      ``test_top5_error`` and ``best_test_top5_error``.

    Raises:
      UserError: if there is no checkpoint, or a required component was not passed.
    """
    settings = settings_of(config)
    workdir = paths.absolute(workdir)
    Arguments(student=student, dataset=dataset, module=module)  # checks them
    check_evaluable(workdir, dataset)
    used = devices.select(settings.runtime.devices, settings.batch_size)
    compilation_cache.use(settings.runtime.compilation_cache)
    opened = {
        key: networks.open_run(workdir, which=which, module=student or module)
        for key, which in (("", "latest"), ("best_", "best"))
    }
    networks.check_needs_no_teacher(opened[""][2], workdir)
    with kept_in_memory():
        loaded = load_dataset(settings.data, hold_out=False, given=dataset)
    identity.check_classes(workdir, opened[""][2], loaded)
    identity.note_other_images(workdir, loaded)
    network, _, described = opened[""]  # the best checkpoint is of the same network
    normalize = functools.partial(data.normalize, mean=described["mean"], std=described["std"])
    measure = evaluator(Objective(network), normalize, loaded.test, settings.batch_size, used)
    errors: dict[str, float] = {}
    for key, (_, variables, _) in opened.items():
        found = measure(devices.replicate(variables, used)).errors
        errors |= {key + name: error for name, error in found.items()}
    return errors
