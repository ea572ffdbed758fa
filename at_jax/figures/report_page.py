"""report.html: one page that says how a run went. It holds all it shows, and asks no network for any."""

import base64
import html
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from at_jax.figures import canvas
from at_jax.figures.summary import Agreement
from at_jax.report import duration

_MOST_CLASSES = (
    20  # of more, a table of all pairs says nothing: the most frequent mistakes are listed
)
_MOST_MISTAKES = 20

# No scripts, no fonts from elsewhere; the policy makes the browser refuse what would slip in.
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
img {{ display: block; width: 100%; min-width: 40rem; height: auto; }}
.result {{ font-size: 1.25rem; font-weight: 600; }}
.quiet {{ color: #595959; font-size: .9rem; }}
.two {{ display: grid; gap: 0 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }}
summary {{ cursor: pointer; }}
</style>
</head>
<body>"""


def page(
    *,
    result: Mapping[str, Any],
    keys: Mapping[str, Any],
    pictures: Mapping[str, pathlib.Path],
    labels: Sequence[str],
    confusion: np.ndarray,
    agreement: Agreement | None,
    versions: Mapping[str, str],
    fingerprint: str,
) -> str:
    """The page.

    Args:
      result: as in result.json.
      keys: of the config, dotted, and their values.
      pictures: heading -> PNG file, put into the page.
      labels: K names of classes.
      confusion: ``(K, K)``, a row a true class.
      agreement: with the teacher, or None.
      versions: of the software.
      fingerprint: of the run, kept in a comment.

    Returns:
      HTML.
    """
    on, images = result["evaluated_on"], int(confusion.sum())
    title = f"{result['student']}, {canvas.label(result['method'])}"
    parts = [
        _HEAD.format(title=html.escape(title)),
        f"<!-- {html.escape(fingerprint)} -->",
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="result">{on} error {result["test_error"]:.2f} %</p>',
        '<div class="two"><section><h2>Result</h2>',
        _table(_result_rows(result)),
        "</section><section><h2>Timing and versions</h2>",
        _table([*_timing_rows(result), *versions.items()]),
        "</section></div>",
    ]
    if agreement is not None:
        parts += [
            "<h2>Agreement of student and teacher</h2>",
            *_agreement(agreement, int(confusion.sum()), on),
        ]
    for heading, path in pictures.items():
        parts += [f"<h2>{html.escape(heading)}</h2>", _picture(path, heading)]
    parts += [
        f"<h2>Confusion of classes, {images:,} {on} images</h2>",
        _confusion(confusion, labels),
        "<h2>Config</h2><details><summary>every key</summary>",
        _table([(key, _value(value)) for key, value in keys.items()]),
        "</details></body></html>\n",
    ]
    return "\n".join(parts)


def _result_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    teacher = result["teacher_test_error"]
    return [
        ("error after the last epoch", f"{result['test_error']:.2f} %"),
        ("lowest error of all epochs", f"{result['best_test_error']:.2f} %"),
        *([("teacher's error", f"{teacher:.2f} %")] if teacher is not None else []),
        ("evaluated on", f"{result['evaluated_on']} images"),
        ("method", result["method"]),
        ("parameters", f"{result['parameters']:,}"),
        ("epochs", f"{result['epochs']:,}"),
        ("seed", str(result["seed"])),
    ]


def _timing_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    speed = result["images_per_second"]
    return [
        ("training, with evaluation", f"{duration(result['wall_seconds'])} (h:)m:s"),
        ("images per second", f"{speed:,.0f}" if speed else "not measured"),
        ("device", result["device"]),
    ]


def _agreement(found: Agreement, images: int, on: str) -> list[str]:
    rows = [
        ("both name the same class", f"{100 * found.top1:.2f} %"),
        ("mean KL(teacher ‖ student) of their probabilities", f"{found.divergence:.4f} nats"),
        *((f"correlation of their maps at {s}", f"{r:.3f}") for s, r in found.correlation.items()),
    ]
    note = (
        f"Means over {images:,} {on} images. Maps are F_sum^2, normalised; the correlation is Pearson's "
        "over the positions of each image: 1 where both look alike, 0 where one tells nothing of the other."
    )
    return [_table(rows), f'<p class="quiet">{note}</p>']


def _confusion(counts: np.ndarray, labels: Sequence[str]) -> str:
    """A table of all pairs, or of the most frequent mistakes where classes are many."""
    if len(labels) > _MOST_CLASSES:
        mistakes = counts - np.diag(np.diag(counts))
        order = np.argsort(-mistakes, axis=None, kind="stable")[:_MOST_MISTAKES]
        places = [np.unravel_index(i, counts.shape) for i in order if mistakes.flat[i]]
        rows = [
            (f"{labels[true]} taken for {labels[named]}", f"{counts[true, named]:,}")
            for true, named in places
        ]
        return _table(rows) if rows else "<p>No mistakes.</p>"
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    head = "".join(f"<th>{html.escape(label)}</th>" for label in labels)
    body = "".join(
        f"<tr><th>{html.escape(label)}</th>"
        + "".join(_cell(count, share) for count, share in zip(row, shares, strict=True))
        + "</tr>"
        for label, row, shares in zip(labels, counts, counts / total, strict=True)
    )
    return (
        '<div class="scroll"><table class="confusion"><tr><th>true \\ named</th>'
        f"{head}</tr>{body}</table></div>"
    )


def _cell(count: int, share: float) -> str:
    """One hue from white to dark blue; the digits turn white where they would drown."""
    if not count:
        return "<td></td>"
    red, green, blue = (round(255 + share**0.5 * (dark - 255)) for dark in (0, 72, 128))
    ink = "#fff" if share > 0.3 else "#1a1a1a"
    return f'<td style="background:rgb({red},{green},{blue});color:{ink}">{count}</td>'


def _table(rows: Sequence[tuple[str, str]]) -> str:
    body = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>"
        for name, value in rows
    )
    return f'<div class="scroll"><table>{body}</table></div>'


def _picture(path: pathlib.Path, alt: str) -> str:
    content = path.read_bytes()
    width = int.from_bytes(content[16:20], "big")  # where every PNG file says it
    inline = base64.b64encode(content).decode()
    return (
        f'<div class="scroll"><img style="max-width:{width}px" alt="{html.escape(alt)}" '
        f'src="data:image/png;base64,{inline}"></div>'
    )


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
