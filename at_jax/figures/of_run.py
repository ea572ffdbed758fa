"""What a run draws when it ends: attention.png, curves.png and report.html in its workdir."""

import json
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

from at_jax import checkpoint, run_directory
from at_jax.experiment import Experiment
from at_jax.figures import canvas, curves, networks, pictures, report_page, summary, views
from at_jax.report import say

ATTENTION, CURVES, REPORT = "attention.png", "curves.png", "report.html"
_ROWS = 8
_MOST_IMAGES = 10_000  # looked at for confusion and agreement


def draw(workdir: pathlib.Path, run: Experiment, result: Mapping[str, Any]) -> bool:
    """Draw a finished run. Whatever goes wrong is one line: the run and its result stand.

    Started again, a finished run is not drawn again; a deleted file is.

    Args:
      workdir: of the run, with all its files.
      run: what was trained.
      result: as in result.json.

    Returns:
      Whether the files are there.
    """
    try:
        fingerprint = f"run {zlib.crc32(json.dumps(result, sort_keys=True).encode()):08x}"
        if not _is_drawn(workdir, run, fingerprint):
            with canvas.style():
                _draw(workdir, run, result, fingerprint)
    except (
        Exception
    ) as error:  # of matplotlib, fonts, a full disk: nothing of it is the run's business
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        say(f"no pictures ({reason}): --config.runtime.figures=False does without")
        return False
    return True


def _is_drawn(workdir: pathlib.Path, run: Experiment, fingerprint: str) -> bool:
    files = [workdir / name for name in (*((ATTENTION,) if run.taps else ()), CURVES, REPORT)]
    return all(path.exists() for path in files) and fingerprint in files[-1].read_text()


def _draw(
    workdir: pathlib.Path, run: Experiment, result: Mapping[str, Any], fingerprint: str
) -> None:
    config = networks.stored_config(workdir)
    student, teacher = _networks(workdir, run)
    points = config["transfer"]["points"]
    batch = run.batches.batch_size
    found = summary.measure(
        student, teacher, run.dataset.test, points=points, batch=batch, most=_MOST_IMAGES
    )
    (workdir / REPORT).unlink(missing_ok=True)  # an old page would speak of another result
    canvas.save(curves.draw([curves.read(workdir)]), workdir / CURVES)
    shown = [student]
    drawn = {"Curves": workdir / CURVES}
    if run.taps:
        shown.append(networks.before_training(student, result["seed"]))
        if teacher is not None:
            shown.append(teacher)
        wrong = found.predictions != found.split.labels
        chosen = pictures.choose(found.split.labels, _ROWS, wrong)
        figure = views.attention(
            shown,
            pictures.from_split(found.split, chosen),
            points=points,
            title=f"Where {result['student']} ({canvas.label(result['method'])}) looks",
            batch=batch,
        )
        canvas.save(figure, workdir / ATTENTION, photographs=True)
        drawn["Attention maps; the last rows are mistakes, where there are any"] = (
            workdir / ATTENTION
        )
    text = report_page.page(
        result=result,
        keys=run_directory.flatten(config),
        pictures=drawn,
        labels=run.dataset.class_names,
        confusion=found.confusion,
        agreement=found.agreement,
        versions=result["versions"] | {"commit": result["commit"] or "unknown"},
        fingerprint=fingerprint,
    )
    run_directory.write_text(workdir / REPORT, text)


def _networks(
    workdir: pathlib.Path, run: Experiment
) -> tuple[networks.Network, networks.Network | None]:
    module = networks.single_device(run.objective.student)
    student = networks.Network(networks.STUDENT, *checkpoint.open_run(workdir, module=module))
    if run.teacher is None:
        return student, None
    described = run.teacher.description or student.description
    module = networks.single_device(run.teacher.module)
    return student, networks.Network(networks.TEACHER, module, run.teacher.variables, described)
