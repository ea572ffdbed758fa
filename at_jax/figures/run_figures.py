"""Figures of a finished run in its workdir: attention.png, curves.png and report.html."""

import dataclasses
import functools
import json
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from at_jax import agreement, data, terms
from at_jax.figures import curves, images, network_figures, networks, report_page, style
from at_jax.figures.networks import Network
from at_jax.figures.report_page import Agreement
from at_jax.training import compatibility, run_files
from at_jax.training.config import flatten
from at_jax.training.console import log
from at_jax.training.networks import open_run
from at_jax.training.setup import Run

__all__ = ["ATTENTION", "CURVES", "REPORT", "Measurements", "draw", "measure"]

ATTENTION, CURVES, REPORT = "attention.png", "curves.png", "report.html"
_ROWS = 8
_MAX_IMAGES = 10_000  # for confusion and agreement


@dataclasses.dataclass(frozen=True, eq=False)
class Measurements:
    """Results of a student on the images that it is evaluated on.

    Attributes:
      split: the N images.
      predictions: classes ``(N,)``.
      confusion: counts ``(K, K)``, one row a true class.
      agreement: None without a teacher.
    """

    split: data.Split
    predictions: np.ndarray
    confusion: np.ndarray
    agreement: Agreement | None


def draw(workdir: pathlib.Path, run: Run, result: Mapping[str, Any]) -> bool:
    """Draw a finished run. An error is logged in one line and does not fail the run.

    Files that belong to this result are not drawn again; missing ones are.

    Args:
      workdir: of the run, with all its files.
      run: components of the run.
      result: content of result.json.

    Returns:
      Whether the files exist.
    """
    try:
        fingerprint = f"run {zlib.crc32(json.dumps(result, sort_keys=True).encode()):08x}"
        if not _is_drawn(workdir, run, fingerprint):
            with style.context():
                _draw(workdir, run, result, fingerprint)
    except Exception as error:  # matplotlib, fonts, a full disk: none of them may fail the run
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
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
    batch = run.batches.batch_size
    measured = measure(student, teacher, run.dataset.test, points=points, batch=batch)
    (workdir / REPORT).unlink(missing_ok=True)  # it may belong to an earlier result
    style.save(curves.draw([curves.read(workdir)]), workdir / CURVES)
    pictures = {"Curves": workdir / CURVES}
    if _has_maps(run):
        untrained = networks.before_training(student, result["seed"])
        wrong = measured.predictions != measured.split.labels
        chosen = images.choose(measured.split.labels, _ROWS, wrong)
        figure = network_figures.attention_figure(
            [student, untrained, *([teacher] if teacher is not None else [])],
            images.from_split(measured.split, chosen),
            points=points,
            title=f"Attention maps of {result['student']} ({terms.title(result['method'])})",
            batch=batch,
        )
        style.save(figure, workdir / ATTENTION)
        pictures["Attention maps (the last rows are mistakes, if any)"] = workdir / ATTENTION
    passed = run_files.read_arguments(workdir)
    keys = run_files.read_config(workdir) | ({"arguments": passed} if passed else {})
    text = report_page.page(
        result=result,
        keys=flatten(keys),
        pictures=pictures,
        class_names=run.dataset.class_names,
        confusion=measured.confusion,
        agreement=measured.agreement,
        fingerprint=fingerprint,
    )
    run_files.write_text(workdir / REPORT, text)


def _networks(
    workdir: pathlib.Path, run: Run, result: Mapping[str, Any]
) -> tuple[Network, Network | None]:
    """Student and teacher of a run, on one device."""
    objective = run.objective
    module = networks.single_device(objective.student)
    student = Network(
        networks.STUDENT,
        *open_run(workdir, module=module),
        paths=objective.paths_s,
        inputs=_inputs(run),
    )
    if run.teacher is None:
        return student, None
    module, description = run.teacher.module, run.teacher.description
    if result["teacher_test_error"] is not None:  # it has the student's classes
        classes = {key: student.description.get(key) for key in ("class_names", "num_classes")}
        description = {**(description or student.description), **classes}
    elif description is None:
        logits = compatibility.shapes(module, student.image_shape, networks.TEACHER).logits
        unknown = {"class_names": [], "num_classes": logits.shape[-1]}
        description = {**student.description, **unknown}
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
    objective = run.objective

    def inputs(variables: Any, normalized: jax.Array) -> dict[str, Any]:
        labels = jnp.zeros(normalized.shape[:1], jnp.int32)
        view: Any = objective.view_teacher(variables, normalized, labels)
        made: dict[str, Any] = {}
        for term in objective.terms:
            if view is not None or not term.needs_teacher:
                made |= term.forward_inputs(view)
        return made

    variables = run.teacher.variables if run.teacher is not None else None
    return functools.partial(jax.jit(inputs), variables)


def measure(
    student: Network,
    teacher: Network | None,
    split: data.Split,
    *,
    points: Sequence[str] = (),
    batch: int,
    most: int = _MAX_IMAGES,
) -> Measurements:
    """Measure a student on a split, and its agreement with its teacher.

    Args:
      student: of the run.
      teacher: None without one.
      split: images that the run is evaluated on.
      points: ``transfer.points`` of the config.
      batch: number of images of a forward pass.
      most: at most this number of images, evenly spaced.
    """
    if len(split) > most:
        split = split.select(np.linspace(0, len(split) - 1, most).astype(np.int64))
    predictions: list[np.ndarray] = []
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for part in data.eval_batches(split, batch):
        real = part["weight"] > 0
        logits, (maps,) = student.attention(part["image"])
        predictions.append(logits.argmax(axis=-1)[real])
        if teacher is not None:
            values = _compare(student, teacher, logits, maps, part["image"], points)
            for key, value in values.items():
                found.setdefault(key, []).append(value[real])
    predicted = np.concatenate(predictions)
    confusion = agreement.confusion(split.labels, predicted, student.description["num_classes"])
    means = {key: float(np.mean(np.concatenate(each))) for key, each in found.items()}
    found_agreement = Agreement(
        means.get(("classes", "top1")),
        means.get(("classes", "divergence")),
        {name: r for (kind, name), r in means.items() if kind == "maps"},
    )
    return Measurements(
        split, predicted, confusion, found_agreement if teacher is not None else None
    )


def _compare(
    student: Network,
    teacher: Network,
    logits_s: np.ndarray,
    maps_s: Mapping[str, np.ndarray],
    pixels: np.ndarray,
    points: Sequence[str],
) -> dict[tuple[str, str], np.ndarray]:
    """Agreement of both networks on each image ``(B,)``: of their classes, and at every transfer point."""
    logits_t, (maps_t,) = teacher.attention(pixels)
    values = {}
    if teacher.has_classes_of(student):
        values["classes", "top1"] = agreement.top1(logits_s, logits_t)
        values["classes", "divergence"] = agreement.divergence(logits_s, logits_t)
    for s, t in network_figures.pairs(points, tuple(maps_s), tuple(maps_t)):
        name = s if s == t else f"{s} and the teacher's {t}"
        values["maps", name] = agreement.correlation(maps_s[s], maps_t[t])
    return values
