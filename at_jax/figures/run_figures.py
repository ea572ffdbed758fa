"""Figures of a finished run in its workdir: attention.png, curves.png and report.html."""

import dataclasses
import functools
import json
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from at_jax import paths, terms
from at_jax.errors import one_line, printable
from at_jax.figures import (
    comparisons,
    curves,
    images,
    network_figures,
    networks,
    report_page,
    style,
)
from at_jax.figures.measurements import Measurements, measure
from at_jax.figures.networks import Network
from at_jax.figures.report_page import Picture
from at_jax.training.components import tracing
from at_jax.training.components.networks import open_run
from at_jax.training.config import flatten
from at_jax.training.console import log
from at_jax.training.files import run_files
from at_jax.training.setup import Run

__all__ = ["ATTENTION", "CURVES", "REPORT", "comparison_rows", "draw"]

ATTENTION, CURVES, REPORT = run_files.FIGURES
_ROWS = 8


def draw(workdir: pathlib.Path, run: Run, result: Mapping[str, Any]) -> bool:
    """Draw a finished run. An error is logged in one line and does not fail the run.

    Files that belong to this result, and to the comparison runs in subfolders, are not drawn again;
    missing ones are.

    Args:
      workdir: of the run, with all its files.
      run: components of the run.
      result: content of result.json.

    Returns:
      Whether the files exist.
    """
    try:
        stated = json.dumps([result, *comparisons.results(workdir)], sort_keys=True)
        fingerprint = f"run {zlib.crc32(stated.encode()):08x}"
        if not _is_drawn(workdir, run, fingerprint):
            with style.context():
                _draw(workdir, run, result, fingerprint)
    except Exception as error:  # matplotlib, fonts, a full disk: none of them may fail the run
        reason = one_line(f"{type(error).__name__}: {error}")
        log(f"no figures ({reason}): --config.runtime.figures=False turns them off")
        return False
    return True


def _is_drawn(workdir: pathlib.Path, run: Run, fingerprint: str) -> bool:
    names = (*([ATTENTION] if _has_maps(run) else []), CURVES, REPORT)
    exist = all((workdir / name).exists() for name in names)
    return exist and fingerprint in (workdir / REPORT).read_text(encoding="utf-8")


def _has_maps(run: Run) -> bool:
    return any(len(tap.shape) == 4 for tap in run.taps.values())


def _draw(workdir: pathlib.Path, run: Run, result: Mapping[str, Any], fingerprint: str) -> None:
    student, teacher = _networks(workdir, run, result)
    points = [f"{s}<-{t}" for s, t in run.objective.points]
    measured = measure(
        student, teacher, run.dataset.test, points=points, batch=run.batches.batch_size
    )
    (workdir / REPORT).unlink(missing_ok=True)  # it may belong to an earlier result
    histories = comparisons.histories(workdir)
    style.save(curves.draw(histories), workdir / CURVES)
    narrow = style.stacked_png([curves.draw(histories, columns=1)])
    pictures = {"Curves": Picture(workdir / CURVES, narrow)}
    if _has_maps(run):
        maps = _maps(workdir, run, student, teacher, measured, points, result)
        style.save(maps.draw(), workdir / ATTENTION)
        narrow = style.stacked_png(maps.draw_narrow())
        heading = "Attention maps (the last rows are mistakes, if any)"
        pictures[heading] = Picture(workdir / ATTENTION, narrow)
    passed = run_files.read_arguments(workdir)
    keys = run_files.read_config(workdir) | ({"arguments": passed} if passed else {})
    text = report_page.page(
        result=result,
        keys=flatten(keys),
        comparison=comparison_rows(histories, workdir) if len(histories) > 1 else (),
        pictures=pictures,
        class_names=tuple(map(printable, run.dataset.class_names)),
        confusion=measured.confusion,
        agreement=measured.agreement,
        fingerprint=fingerprint,
    )
    run_files.write_text(workdir / REPORT, text)


def _maps(
    workdir: pathlib.Path,
    run: Run,
    student: Network,
    teacher: Network | None,
    measured: Measurements,
    points: Sequence[str],
    result: Mapping[str, Any],
) -> network_figures.MapGrid:
    """Maps of the student alone (or before its training), the student, and its teacher."""
    other = None if result["method"] == "none" else comparisons.baseline(workdir, student)
    if other is None:
        initial = run.initial.variables if run.initial else None
        other = networks.before_training(student, result["seed"], initial)
    elif teacher is not None:
        student = dataclasses.replace(student, title=networks.WITH_TRANSFER)
    wrong = measured.predictions != measured.split.labels
    chosen = images.choose(measured.split.labels, _ROWS, wrong)
    return network_figures.attention_grid(
        [student, other, *([teacher] if teacher is not None else [])],
        images.from_split(measured.split, chosen),
        points=points,
        title=f"Attention maps of {result['student']} ({terms.title(result['method'])})",
        batch=run.batches.batch_size,
    )


def comparison_rows(
    runs: Sequence[curves.History], workdir: pathlib.Path
) -> list[tuple[str, str, str]]:
    """Rows (method, last error, best error) of the comparison runs, the run itself, and the teacher."""
    rows = []
    for name, run in zip(curves.run_names(runs), runs, strict=True):
        errors = [line["test_error"] for line in run.lines]
        if run.workdir == paths.resolve(workdir):
            name += " (this run)"
        rows.append((name, f"{errors[-1]:.2f} %", f"{min(errors):.2f} %"))
    of_teachers = {f"{run.teacher_error:.2f} %" for run in runs if run.teacher_error is not None}
    return [*rows, *(("teacher", error, "") for error in sorted(of_teachers))]


def _networks(
    workdir: pathlib.Path, run: Run, result: Mapping[str, Any]
) -> tuple[Network, Network | None]:
    """Student and teacher of a run, on one device."""
    objective = run.objective
    module = networks.single_device(objective.student)
    student = Network(
        # Without a teacher the network may itself be one: the word student would mislead.
        result["student"] if run.teacher is None else networks.STUDENT,
        *open_run(workdir, module=module),
        paths=objective.paths_s,
        inputs=_inputs(run),
    )
    if run.teacher is None:
        return student, None
    module, description = run.teacher.module, run.teacher.description
    own: Any = objective.teacher_images
    if result["teacher_test_error"] is not None:  # it has the student's classes
        classes = {key: student.description.get(key) for key in ("class_names", "num_classes")}
        description = {**(description or student.description), **classes}
    elif description is None:
        shape = own.shape if own else student.image_shape
        logits = tracing.shapes(module, shape, networks.TEACHER).logits
        unknown = {"class_names": [], "num_classes": logits.shape[-1]}
        description = {**student.description, **unknown}
    description = {**description, **(own.describe() if own else {})}
    teacher = Network(
        networks.TEACHER,
        networks.single_device(module),
        run.teacher.variables,
        description,
        paths=objective.paths_t,
    )
    return student, teacher


def _inputs(run: Run) -> Callable[[jax.Array], Mapping[str, Any]] | None:
    """Keyword arguments of the student that a term computes from the teacher; None without any."""
    if not run.evaluates_with_teacher:
        return None
    variables = run.teacher.variables if run.teacher is not None else None
    return functools.partial(jax.jit(run.objective.forward_inputs), variables)
