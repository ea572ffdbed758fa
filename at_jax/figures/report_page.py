"""report.html: one page about a finished run. It holds its images, and loads nothing from a network."""

import base64
import dataclasses
import html
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from at_jax import terms
from at_jax.figures import html_tables
from at_jax.training import metrics
from at_jax.training.console import duration

__all__ = ["Agreement", "Picture", "page"]

# No scripts and no external files; the policy makes the browser refuse them.
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
:root {{ color-scheme: light; }}
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 78rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.5rem; line-height: 1.25; }}
h2 {{ font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #ccc; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .25rem .6rem; text-align: left; border-bottom: 1px solid #e4e4e4;
  vertical-align: top; }}
.confusion td, .confusion th {{ text-align: center; border: 1px solid #fff; white-space: nowrap; }}
img {{ display: block; max-width: 100%; height: auto; }}
.narrow {{ display: none; }}
.result {{ font-size: 1.25rem; font-weight: 600; }}
.quiet {{ color: #595959; font-size: .9rem; }}
.two {{ display: grid; gap: 0 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }}
summary {{ cursor: pointer; }}
@media (max-width: 40rem) {{
  .wide {{ display: none; }}
  .narrow {{ display: block; }}
  .confusion {{ font-size: .7rem; line-height: 1.4; }}
  .confusion td, .confusion th {{ padding: .15rem; width: 1.2rem; vertical-align: middle; }}
  .confusion th {{ white-space: normal; max-width: 6rem; }}
  .confusion th:first-child {{ overflow-wrap: normal; }}
  .tall tr:first-child th + th {{ writing-mode: vertical-rl; white-space: nowrap; max-width: none; }}
}}
</style>
</head>
<body>"""


@dataclasses.dataclass(frozen=True, eq=False)
class Agreement:
    """Agreement of student and teacher, means over images.

    Attributes:
      top1: share of images with the same predicted class, 0..1; None with other classes.
      divergence: KL(teacher || student) of their probabilities, in nats; None with other classes.
      correlation: transfer point to Pearson correlation of the maps F_sum^2, -1..1.
    """

    top1: float | None
    divergence: float | None
    correlation: dict[str, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A PNG file, and another one with the same content for windows as narrow as a phone.

    Attributes:
      wide: path of the file.
      narrow: content of the other one.
    """

    wide: pathlib.Path
    narrow: bytes


def page(
    *,
    result: Mapping[str, Any],
    keys: Mapping[str, Any],
    comparison: Sequence[tuple[str, str, str]] = (),
    pictures: Mapping[str, Picture],
    class_names: Sequence[str],
    confusion: np.ndarray,
    agreement: Agreement | None,
    fingerprint: str,
) -> str:
    """Write the page.

    Args:
      result: content of result.json.
      keys: dotted keys of the config, and their values.
      comparison: rows (method, last error, best error); empty without comparison runs.
      pictures: heading to picture, which is embedded.
      class_names: K names.
      confusion: counts ``(K, K)``, one row per true class.
      agreement: with the teacher; None without one.
      fingerprint: of the run, kept in a comment.

    Returns:
      HTML.
    """
    on, images = result["evaluated_on"], f"{int(confusion.sum()):,}"
    title = f"{result['student']}, {terms.title(result['method'])}"
    versions = {**result["versions"], "commit": result["commit"] or "unknown"}
    parts = [
        _HEAD.format(title=html.escape(title)),
        f"<!-- {html.escape(fingerprint)} -->",
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="result">{on} error {result["test_error"]:.2f} %</p>',
        '<div class="two"><section><h2>Result</h2>',
        html_tables.table(_result_rows(result, has_teacher=agreement is not None)),
        "</section><section><h2>Timing and versions</h2>",
        html_tables.table([*_timing_rows(result), *versions.items()]),
        "</section></div>",
    ]
    if comparison:
        head = ("method", f"last {on} error", f"best {on} error")
        parts += ["<h2>Comparison</h2>", html_tables.table(comparison, head)]
        parts.append('<p class="quiet">One run per method; other seeds give different errors.</p>')
    if agreement is not None:
        parts.append("<h2>Agreement of student and teacher</h2>")
        parts += _agreement(agreement, f"{images} {on} images")
    for heading, picture in pictures.items():
        parts += [f"<h2>{html.escape(heading)}</h2>", _picture(picture, heading)]
    parts += [
        f"<h2>Confusion of classes, {images} {on} images</h2>",
        html_tables.confusion(confusion, class_names),
        "<h2>Config</h2><details><summary>all keys</summary>",
        html_tables.table([(key, _value(value)) for key, value in keys.items()]),
        "</details></body></html>\n",
    ]
    return "\n".join(parts)


def _result_rows(result: Mapping[str, Any], *, has_teacher: bool) -> list[tuple[str, str]]:
    of_teacher = []
    if result["teacher_test_error"] is not None:
        of_teacher = [("teacher error", metrics.shown(result, "teacher_test_error"))]
    elif has_teacher:
        of_teacher = [("teacher error", "not defined (different classes)")]
    return [
        ("error after the last epoch", metrics.shown(result)),
        ("lowest error of all epochs", f"{result['best_test_error']:.2f} %"),
        *of_teacher,
        ("evaluated on", f"{result['evaluated_on']} images"),
        ("method", result["method"]),
        ("parameters", f"{result['parameters']:,}"),
        ("epochs", f"{result['epochs']:,}"),
        ("seed", str(result["seed"])),
    ]


def _timing_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    speed = result["images_per_second"]
    return [
        ("training and evaluation", duration(result["wall_seconds"])),
        ("images per second", f"{speed:,.0f}" if speed else "not measured"),
        ("device", result["device"]),
    ]


def _agreement(found: Agreement, images: str) -> list[str]:
    rows = [(f"correlation of maps at {s}", f"{r:.3f}") for s, r in found.correlation.items()]
    if found.divergence is not None:
        rows.insert(0, ("mean KL(teacher ‖ student)", f"{found.divergence:.4f} nats"))
    if found.top1 is not None:
        rows.insert(0, ("top-1 agreement", f"{100 * found.top1:.2f} %"))
    note = (
        f"Means over {images}. Maps are F_sum^2; the correlation is Pearson's, over the positions of each "
        "image."
    )
    return [html_tables.table(rows), f'<p class="quiet">{note}</p>']


def _picture(picture: Picture, alt: str) -> str:
    wide, narrow = (
        f"data:image/png;base64,{base64.b64encode(content).decode()}"
        for content in (picture.wide.read_bytes(), picture.narrow)
    )
    return (
        f'<picture><source media="(max-width: 40rem)" srcset="{narrow}">'
        f'<img alt="{html.escape(alt)}" src="{wide}"></picture>'
    )


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
