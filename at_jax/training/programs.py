"""Training of prepared runs, in as few programs as their progress allows."""

from collections.abc import Sequence
from typing import Any

from at_jax.training import comparison, result
from at_jax.training.components.arguments import Callback
from at_jax.training.console import log
from at_jax.training.files import checkpoint_meta
from at_jax.training.non_finite import NonFinite
from at_jax.training.preparation import Prepared
from at_jax.training.trainer import Trainer

__all__ = ["train_compared", "train_divided"]


def train_compared(
    runs: Sequence[Prepared], callbacks: Sequence[Callback], profile: bool
) -> dict[str, Any]:
    """Train a run, the first of ``runs``, and its comparison runs.

    Args:
      runs: with a common teacher.
      callbacks: of the first run.
      profile: write a profiler trace of the first run.

    Returns:
      The content of result.json of the first run.

    Raises:
      at_jax.loop.NonFinite: naming the run; a comparison run can be left out.
    """
    compares = len(runs) > 1
    methods = [each.run.method for each in runs]
    try:
        results = train_divided(
            runs,
            labels=methods if compares else (),
            quiet=compares,
            profile=profile,
            callbacks=callbacks,
        )
    except NonFinite as error:
        index = [each.workdir for each in runs].index(error.workdir)
        if index == 0:
            raise
        fix = f"or leave {methods[index]!r} out of compare and run the same command again"
        raise NonFinite(f"{error}, {fix}", error.workdir) from error
    if compares:
        log(comparison.table([*results[1:], results[0]]))
    return results[0]


def train_divided(
    runs: Sequence[Prepared],
    *,
    labels: Sequence[str] = (),
    quiet: bool = False,
    profile: bool = False,
    callbacks: Sequence[Callback] = (),
) -> list[dict[str, Any]]:
    """Train runs with a common teacher, the first run in the first program.

    Args:
      runs: to train.
      labels: prefixes of their lines on the console.
      quiet: print no result of a single run.
      profile: write a profiler trace of the first run.
      callbacks: of the first run.

    Returns:
      The content of result.json of each run.
    """
    results: dict[int, dict[str, Any]] = {}
    parts = checkpoint_meta.resumable_groups([each.workdir for each in runs])
    for part in sorted(parts, key=lambda part: 0 not in part):
        trained = [(runs[index].run, runs[index].workdir) for index in part]
        used = runs[part[0]].devices
        progress = Trainer(
            trained,
            used,
            labels=[labels[index] for index in part] if labels else (),
            profile=profile and 0 in part,
            callbacks=callbacks if 0 in part else (),
        ).train()
        with_teacher = next((each for each in trained if each[0].teacher), trained[0])
        errors_t = result.teacher_errors(*with_teacher, used)
        for index, (run, folder), each in zip(part, trained, progress, strict=True):
            own_t = errors_t if run.teacher else None
            results[index] = result.finish(run, folder, each, own_t, quiet=quiet)
    return [results[index] for index in range(len(runs))]
