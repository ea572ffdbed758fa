"""Tables of report.html; its style sheet is in report_page.py."""

import html
from collections.abc import Sequence

import numpy as np

__all__ = ["confusion", "table"]

# With more, the most frequent mistakes are listed instead of all pairs.
_MAX_CLASSES, _MAX_CLASSES_NARROW = 20, 10
_MAX_MISTAKES = 20


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Write a table of text cells, which are escaped; the head is a row above the others."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join([*([line("th", head)] if head else []), *(line("td", row) for row in rows)])
    return f'<div class="scroll"><table>{body}</table></div>'


def confusion(counts: np.ndarray, class_names: Sequence[str]) -> str:
    """Write a table of all pairs of classes, or of the most frequent mistakes where classes are many.

    Args:
      counts: ``(K, K)``, one row per true class.
      class_names: K names.
    """
    if len(class_names) > _MAX_CLASSES:
        return _mistakes(counts, class_names)
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in class_names)
    body = "".join(
        f"<tr><th>{html.escape(name)}</th>"
        + "".join(_cell(count, share) for count, share in zip(row, shares, strict=True))
        + "</tr>"
        for name, row, shares in zip(class_names, counts, counts / total, strict=True)
    )
    # In narrow windows, names above the columns are turned, unless they are as short as digits.
    tall = " tall" if max(map(len, class_names)) > 2 else ""
    matrix = (
        f'<div class="scroll"><table class="confusion{tall}"><tr><th>true \\ predicted</th>'
        f"{head}</tr>{body}</table></div>"
    )
    if len(class_names) <= _MAX_CLASSES_NARROW:
        return matrix
    narrow = _mistakes(counts, class_names)
    return f'<div class="wide">{matrix}</div><div class="narrow">{narrow}</div>'


def _mistakes(counts: np.ndarray, class_names: Sequence[str]) -> str:
    """A table of the most frequent mistakes."""
    mistakes = counts - np.diag(np.diag(counts))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:_MAX_MISTAKES]
    places = [np.unravel_index(i, counts.shape) for i in order if mistakes.flat[i]]
    rows = [
        (
            f"{class_names[true]} predicted as {class_names[predicted]}",
            f"{counts[true, predicted]:,}",
        )
        for true, predicted in places
    ]
    return table(rows) if rows else "<p>No mistakes.</p>"


def _cell(count: int, share: float) -> str:
    """One hue from white to dark blue; digits in dark cells are white."""
    if not count:
        return "<td></td>"
    red, green, blue = (round(255 + share**0.5 * (dark - 255)) for dark in (0, 72, 128))
    ink = "#fff" if share > 0.3 else "#1a1a1a"
    return f'<td style="background:rgb({red},{green},{blue});color:{ink}">{count}</td>'
