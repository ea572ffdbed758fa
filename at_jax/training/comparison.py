"""Comparison runs: the same student with other methods, trained in the program of a run."""

import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_collections

from at_jax import terms
from at_jax.training.components.arguments import Arguments
from at_jax.training.config import comparison_config
from at_jax.training.console import log
from at_jax.training.files import run_files
from at_jax.training.preparation import Prepared, prepare

__all__ = ["prepare_runs", "table"]


def prepare_runs(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    main: Prepared,
    arguments: Arguments,
    lock: Callable[[pathlib.Path], None],
) -> list[Prepared]:
    """Prepare a run for each method of ``compare``, in a subdirectory of the workdir with its name.

    They are ordinary runs with the teacher of the main one. Their figures are those of the main run.

    Args:
      config: of the main run.
      workdir: of the main run.
      main: the main run, whose teacher is finished.
      arguments: passed by the user.
      lock: takes the lock of a workdir.

    Returns:
      The runs without the main one.

    Raises:
      UserError: as :func:`at_jax.training.preparation.prepare`.
    """
    prepared = []
    for method in main.run.settings.compare:
        is_main = terms.parts(method) == terms.parts(main.run.settings.method)
        if is_main and arguments.terms is None:
            continue
        needs_teacher = terms.needs_teacher(method)
        if needs_teacher and main.run.teacher is None:
            log(f"compare: {method} is skipped, because {main.run.method} has no teacher")
            continue
        folder = workdir / method
        lock(folder)
        changed = _config(config, method, workdir, arguments)
        own = arguments.for_comparison(needs_teacher)
        prepared.append(prepare(changed, folder, own, describe=False))
    return prepared


def _config(
    config: ml_collections.ConfigDict, method: str, workdir: pathlib.Path, arguments: Arguments
) -> ml_collections.ConfigDict:
    """Config of a comparison run, with the teacher of the main run."""
    result = comparison_config(config, method)
    is_given = arguments.teacher or config.teacher.checkpoint or config.teacher.weights
    if terms.needs_teacher(method) and not is_given:
        result.teacher.checkpoint = str(workdir / run_files.TEACHER)  # the main run trained it
    return result


def table(results: Iterable[Mapping[str, Any]]) -> str:
    """Format the errors of a comparison, one method per line, and that of the teacher.

    Args:
      results: content of each result.json, in the order of the lines.

    >>> alone = {"method": "none", "test_error": 6.76, "best_test_error": 6.5, "teacher_test_error": None,
    ...          "evaluated_on": "test"}
    >>> print(table([alone, alone | {"method": "at", "test_error": 4.23, "teacher_test_error": 0.56}]))
                                test error     best
      labels only                   6.76 %   6.50 %
      attention transfer (at)       4.23 %   6.50 %
      teacher                       0.56 %
    """
    results = list(results)
    methods = [each["method"] for each in results]
    names = [terms.title(m) + ("" if m == "none" else f" ({m})") for m in methods]
    width = max(map(len, names))
    lines = [f"  {'':<{width}}  {results[0]['evaluated_on'] + ' error':>11}     best"]
    for name, result in zip(names, results, strict=True):
        errors = f"{result['test_error']:>9.2f} %  {result['best_test_error']:>5.2f} %"
        lines.append(f"  {name:<{width}}  {errors}")
    teacher = [r["teacher_test_error"] for r in results if r["teacher_test_error"] is not None]
    if teacher:
        lines.append(f"  {'teacher':<{width}}  {teacher[0]:>9.2f} %")
    return "\n".join(lines)
