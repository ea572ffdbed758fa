"""Tables and chart of a record."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gpu.record import Record

__all__ = ["markdown", "write"]

_UNITS = {
    "steps": "Steps per second of one device; peak memory by XLA's plan, or PyTorch's allocator.",
    "convolutions": (
        "Milliseconds, first / second order, TF32. On a GPU at_jax uses `family, lax forms`; a faster "
        "column of the family is a reason to change that."
    ),
    "epoch": "Images per second of bare steps and of an epoch from host memory.",
    "together": "Several students in one program against the same number of separate steps.",
}


def write(record: Record, left: Sequence[str]) -> pathlib.Path:
    """Write ``<device>.md`` and, where matplotlib is installed, ``<device>.png``.

    Args:
      record: of the run.
      left: names of rows that were not measured for lack of time.

    Returns:
      The Markdown file.
    """
    path = record.path.with_suffix(".md")
    path.parent.mkdir(parents=True, exist_ok=True)  # missing if no row was measured
    path.write_text(markdown(record.data, left))
    try:
        _draw(record.data, record.path.with_suffix(".png"))
    except ModuleNotFoundError:
        print("matplotlib is not installed: no chart. Run the command again where it is.")
    return path


def markdown(data: Mapping[str, Any], left: Sequence[str]) -> str:
    """One table a section, with the conditions above."""
    conditions = data["conditions"]
    versions = ", ".join(f"{name} {version}" for name, version in conditions["versions"].items())
    lines = [f"# {conditions['device']}", "", f"{versions}; {conditions['date']}.", ""]
    for section, rows in data["rows"].items():
        measured = {name: result for name, result in rows.items() if "error" not in result}
        columns = list(dict.fromkeys(key for result in measured.values() for key in result))
        lines += [f"## {section}", "", _UNITS[section], ""]
        if measured:
            lines += ["| row | " + " | ".join(map(_title, columns)) + " |"]
            lines += ["|---" + "|---:" * len(columns) + "|"]
        for name, result in measured.items():
            lines.append(f"| {name} | " + " | ".join(_cell(result.get(c)) for c in columns) + " |")
        failed = [f"- {name}: {rows[name]['error']}" for name in rows if name not in measured]
        lines += ["", *(["Failed:", "", *failed, ""] if failed else [])]
    if left:
        lines += ["Not measured for lack of time (run the command again):", ""]
        lines += [f"- {name}" for name in left]
    return "\n".join(lines).rstrip() + "\n"


def _title(column: str) -> str:
    for suffix, unit in (("_mib", ", MiB"), ("_ms", ", ms"), ("_s", ", s")):
        if column.endswith(suffix):
            column = column.removesuffix(suffix) + unit
    return column.replace("_", " ")


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " / ".join(_cell(each) for each in value)
    return "-" if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _draw(data: Mapping[str, Any], path: pathlib.Path) -> None:
    """Bars of the steps per second, grouped by pair, method and precision."""
    from matplotlib.figure import Figure

    rows = {
        name: result["steps_per_second"]
        for name, result in data["rows"].get("steps", {}).items()
        if "error" not in result
    }
    if not rows:
        return
    cases = list(dict.fromkeys(name.split("; ")[0] for name in rows))
    kinds = list(dict.fromkeys(name.split("; ")[1] for name in rows))
    figure = Figure(figsize=(8, 0.25 * len(rows) + 1.5), layout="constrained")
    axes = figure.subplots()
    colors = ("#0072B2", "#56B4E9", "#E69F00", "#D55E00")
    height = 0.8 / len(kinds)
    for index, kind in enumerate(kinds):
        present = [i for i, case in enumerate(cases) if f"{case}; {kind}" in rows]
        values = [rows[f"{cases[i]}; {kind}"] for i in present]
        places = [i + (index - (len(kinds) - 1) / 2) * height for i in present]
        drawn = axes.barh(places, values, height=0.9 * height, color=colors[index % 4], label=kind)
        axes.bar_label(drawn, fmt="%.3g", padding=3, fontsize=7)
    axes.set_yticks(
        range(len(cases)), [case.replace(" px, ", " px\n") for case in cases], fontsize=7
    )
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.01)
    axes.set_xlabel("training steps per second")
    axes.set_title(data["conditions"]["device"], fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="best")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=110)
