"""Randomly drawn configurations: each is refused in one line before it compiles, or trains one step."""

import contextlib
import functools
import io
import pathlib
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from at_jax.cli import train
from at_jax.errors import UserError
from at_jax.terms import TERMS
from at_jax.training import preparation, state, step
from at_jax.training.components.arguments import Arguments
from at_jax.training.config import default_values
from at_jax.training.setup import Run
from benchmarks.faults.draws import draw
from benchmarks.faults.row import Row
from benchmarks.faults.small_run import Network

__all__ = ["run"]

_SECONDS, _TIMEOUT = 10, 120  # of the process until a refusal; of the clock for everything
_COMPILER = {"xla_backend_optimization_level": 0}
_BASE = {
    "method": "at+kd",
    "compare": "()",
    "epochs": "2",
    "batch_size": "20",
    "data.train_examples": "60",
    "optimizer.drop_epochs": "(1,)",
    "runtime.devices": "1",
    "runtime.compilation_cache": "",
}


def run(count: int, folder: pathlib.Path, seed: int) -> Row:
    """Draw configurations, parse each as a command line, and train one step.

    Args:
      count: number of configurations.
      folder: for workdirs.
      seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    failures, arguments = [], list(sys.argv)
    for index in range(count):
        changes = draw(rng)
        # Output of a run is not part of the check. Relative paths among the values are below the folder.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.chdir(folder), _alarm():
            problem = _problem(changes, folder / str(index))
        shutil.rmtree(folder / str(index), ignore_errors=True)
        if problem:
            shown = " ".join(f"--config.{k}={v[:40]!r}" for k, v in changes.items())
            failures.append(f"{shown}: {problem}")
    _forget_flags()
    sys.argv[:] = arguments
    return Row("Randomly drawn configurations", count, tuple(failures))


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"no result within {_TIMEOUT} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_TIMEOUT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _problem(changes: dict[str, str], workdir: pathlib.Path) -> str:
    """Describe the fault in the outcome of a configuration; empty if there is none."""
    began = time.process_time()
    try:
        prepared = _prepare(changes, workdir)
    except UserError as error:
        seconds = time.process_time() - began
        return _problem_of_message(str(error), changes) or (
            f"refused after {seconds:.0f} s" if seconds > _SECONDS else ""
        )
    except Exception as error:  # the check is that there is none
        return f"{type(error).__name__}: {' '.join(traceback.format_exc().split())[-300:]}"
    try:
        wrong = _train_one_step(prepared)
    except Exception as error:
        return f"{type(error).__name__} while training: {' '.join(str(error).split())[:300]}"
    return f"not finite: {wrong}" if wrong else ""


def _problem_of_message(message: str, changes: dict[str, str]) -> str:
    # A changed key may need another one, which has a section: data.source='folder' needs data.data_dir.
    keys = {*changes, *_BASE, *(key for key in default_values() if "." in key)}
    text = message.replace("--config.", "")
    named = [key for key in keys if re.search(rf"(?<![\w.]){re.escape(key)}(?!\w)", text)]
    advice = (
        r"--config\.|one of|from .+ to |at most|at least|\buse |\bset |choose|leave|lower|did you mean|"
        r"for example|\bpass |\badd "
    )
    if len(message.splitlines()) != 1:
        return f"more than one line: {message!r}"
    if not named:
        return f"names no key: {message}"
    return "" if re.search(advice, message) else f"names no valid value: {message}"


def _prepare(changes: dict[str, str], workdir: pathlib.Path) -> Run:
    """Parse and check as the command does."""
    _forget_flags()
    values = _BASE | changes
    sys.argv[:] = ["at-jax train", *(f"--config.{key}={value}" for key, value in values.items())]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            train.parse(sys.argv)
    except SystemExit:
        raise UserError(errors.getvalue().removeprefix("error: ").rstrip("\n")) from None
    config = flags.FLAGS["config"].value
    network = Network()
    given = Arguments(student=network)
    names = str(config.method).split("+")
    if any(TERMS[name].needs_teacher for name in names if name in TERMS):
        # A network that is there already: what the config says about the teacher is checked all the same.
        given = Arguments(student=network, teacher=(network, _variables()))
    prepared = preparation.prepare(config, workdir, given, describe=False)
    return prepared.run


def _forget_flags() -> None:
    """Remove the overrides that parsing has defined as flags."""
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)


@functools.cache
def _variables() -> Any:
    return jax.jit(Network().init)(jax.random.key(1), jnp.zeros((1, 16, 16, 1)))


def _train_one_step(run: Run) -> str:
    """Names of the numbers that are not finite after one step; empty if all are."""

    def update(key, teacher, batch):
        shape = run.dataset.image_shape
        student = run.objective.student
        first = state.create(student, run.modules, run.optimizer, key, shape, run.taps)
        return step.train_together(
            (first,),
            teacher,
            key,
            batch,
            students=(run.student_spec,),
            prepare=run.prepare_train,
            accumulation=run.settings.accumulation,
        )

    teacher = run.teacher.variables if run.teacher else None
    program = jax.jit(update, compiler_options=_COMPILER)
    results = program(jax.random.key(0), teacher, run.batches.batch(0, (0, 1)))
    leaves = jax.tree_util.tree_leaves_with_path(results)
    wrong = [
        jax.tree_util.keystr(path)
        for path, leaf in leaves
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.all(np.isfinite(leaf))
    ]
    return ", ".join(wrong[:3])
