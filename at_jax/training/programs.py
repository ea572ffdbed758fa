"""Training of prepared runs, in as few programs as their progress allows."""

import pathlib
from collections.abc import Sequence
from typing import Any

from at_jax.training import comparison, result, resume
from at_jax.training.components.arguments import Callback
from at_jax.training.console import log
from at_jax.training.preparation import Prepared
from at_jax.training.trainer import NonFinite, Trainer

__all__ = ["train_compared", "train_divided"]


def train_compared(
    runs: Sequence[tuple[Prepared, pathlib.Path]], callbacks: Sequence[Callback], profile: bool
) -> dict[str, Any]:
    """Train a run, which is the first, and its comparison runs.

    Args:
      runs: with their workdirs.
      callbacks: of the first run.
      profile: write a profiler trace of the first run.

    Returns:
      The content of result.json of the first run.

    Raises:
      NonFinite: naming the run; a comparison run can be left out.
    """
    compares = len(runs) > 1
    methods = [each.run.method for each, _ in runs]
    try:
        results = train_divided(
            runs,
            labels=methods if compares else (),
            quiet=compares,
            profile=profile,
            callbacks=callbacks,
        )
    except NonFinite as error:
        index = [folder for _, folder in runs].index(error.workdir)
        if index == 0:
            raise
        fix = f"or leave {methods[index]!r} out of compare and run the same command again"
        raise NonFinite(f"{error}, {fix}", error.workdir) from error
    if compares:
        log(comparison.table([*results[1:], results[0]]))
    return results[0]


def train_divided(
    runs: Sequence[tuple[Prepared, pathlib.Path]],
    *,
    labels: Sequence[str] = (),
    quiet: bool = False,
    profile: bool = False,
    callbacks: Sequence[Callback] = (),
) -> list[dict[str, Any]]:
    """Train runs with a common teacher, the first run in the first program.

    Args:
      runs: with their workdirs.
      labels: prefixes of their lines on the console.
      quiet: print no result of a single run.
      profile: write a profiler trace of the first run.
      callbacks: of the first run.

    Returns:
      The content of result.json of each run.
    """
    results: dict[int, dict[str, Any]] = {}
    parts = resume.divide([folder for _, folder in runs])
    for part in sorted(parts, key=lambda part: 0 not in part):
        found = _train(
            [runs[index] for index in part],
            labels=[labels[index] for index in part] if labels else (),
            quiet=quiet,
            profile=profile and 0 in part,
            callbacks=callbacks if 0 in part else (),
        )
        results |= zip(part, found, strict=True)
    return [results[index] for index in range(len(runs))]


def _train(
    runs: Sequence[tuple[Prepared, pathlib.Path]],
    *,
    labels: Sequence[str] = (),
    quiet: bool = False,
    profile: bool = False,
    callbacks: Sequence[Callback] = (),
) -> list[dict[str, Any]]:
    """Train runs in one program, and return the content of each result.json."""
    used = runs[0][0].devices
    trained = [(each.run, folder) for each, folder in runs]
    ends = Trainer(trained, used, labels=labels, profile=profile, callbacks=callbacks).train()
    with_teacher = next((run for run, _ in trained if run.teacher is not None), None)
    errors_t = result.teacher_errors(with_teacher, used) if with_teacher else None
    return [
        result.finish(run, folder, progress, errors_t if run.teacher else None, quiet=quiet)
        for (run, folder), progress in zip(trained, ends, strict=True)
    ]
