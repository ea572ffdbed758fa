"""What was measured, as JSON, as a Markdown table and as a bar chart."""

import datetime
import json
import os
import pathlib
import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import flax
import jax
import jaxlib
import matplotlib

from at_jax import parallel
from benchmarks.double_backprop import floor
from benchmarks.double_backprop.programs import Setting, split

matplotlib.use("Agg")  # headless, whatever the environment names
from matplotlib import pyplot as plt

JAX = "JAX"
_NAME = "double_backprop"
_LABELS = {"none": "plain"}
_COLUMNS = (
    "row", "passes", "ms a step", "(quartiles)", "images/s", "time ratio", "GFLOP", "FLOP ratio", "floor",
    "temporary MB", "compile s", "slow convolutions",
)  # fmt: skip
_LEGEND = (
    "Ratios are to the plain step. GFLOP: XLA's cost analysis of the whole step. Floor: the passes over S "
    "(one forward pass of the student), s (its first layer) and T (of the teacher), against 3S - s, of "
    "the method, whatever the mode. "
    "Temporary: memory beside arguments and results. Slow convolutions: those that XLA:CPU leaves to a "
    "loop nest (counted on CPU alone)."
)


def record(
    setting: Setting,
    contenders: Mapping[tuple[str, str], Any],
    samples: Mapping[tuple[str, str], Sequence[float]],
    steps: int,
) -> dict[str, Any]:
    """Everything that was measured, and what it was measured on.

    Args:
      setting: of the run.
      contenders: (who, row) -> program; those of "JAX" are analysed too.
      samples: (who, row) -> seconds a step, one a round.
      steps: that each sample is the mean of.
    """
    student, first_layer = floor.forward_cost(setting.module(setting.student), setting.image_size)
    teacher, _ = floor.forward_cost(setting.module(setting.teacher), setting.image_size)
    plain = floor.passes("none").cost(student, first_layer, teacher)
    rows = {}
    for (who, row), program in contenders.items():
        measured = _summary(samples[who, row], setting.batch)
        if who == JAX:
            passes = floor.passes(split(row)[0])
            measured |= program.analysis() | {
                "passes": str(passes),
                "floor": passes.cost(student, first_layer, teacher) / plain,
            }
        rows.setdefault(who, {})[row] = measured
    for who in rows:
        for measured in rows[who].values():
            measured["time_ratio"] = measured["median"] / rows[JAX]["none"]["median"]
    for measured in rows[JAX].values():
        measured["flop_ratio"] = measured["flops"] / rows[JAX]["none"]["flops"]
    return {
        "date": datetime.date.today().isoformat(),
        "student": setting.student,
        "teacher": setting.teacher,
        "image_size": setting.image_size,
        "batch": setting.batch,
        "dtype": setting.dtype,
        "device": parallel.describe(setting.devices),
        "host": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "precision": _precision(setting),
        "malloc": os.environ.get("GLIBC_TUNABLES", "as it is"),
        "versions": _versions(rows),
        "rounds": len(samples[JAX, "none"]),
        "steps_per_round": steps,
        "multiply_adds": {"S": student, "s": first_layer, "T": teacher},
        "rows": rows,
    }


def _precision(setting: Setting) -> str:
    """The arithmetic of convolutions: on an NVIDIA GPU float32 means TF32 unless more is asked for."""
    asked = jax.config.jax_default_matmul_precision
    on_gpu = setting.devices[0].platform == "gpu"
    if setting.dtype == "float32" and on_gpu and asked in (None, "default", "tensorfloat32"):
        return "float32 (TF32)"
    return setting.dtype


def _versions(rows: Mapping[str, Any]) -> dict[str, str]:
    found = {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
    }
    found["flax"] = flax.__version__
    if set(rows) - {JAX}:
        import torch

        found["torch"] = torch.__version__
    return found


def _summary(seconds: Sequence[float], batch: int) -> dict[str, Any]:
    median = statistics.median(seconds)
    low, _, high = (
        statistics.quantiles(seconds, n=4, method="inclusive")
        if len(seconds) > 1
        else (median,) * 3
    )
    return {
        "median": median,
        "quartiles": [low, high],
        "images_per_second": batch / median,
        "samples": list(seconds),
    }


def markdown(record: Mapping[str, Any]) -> str:
    """The record as tables, with the setting above and the legend below."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [
        f"{record['student']} <- {record['teacher']}, batch {record['batch']}, {record['image_size']} "
        f"pixels, {record['precision']}; {record['device']} ({record['host']}); {versions}; medians of "
        f"{record['rounds']} interleaved rounds of {record['steps_per_round']} steps; "
        f"malloc {record['malloc']}; {record['date']}.",
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|---" + "|---:" * (len(_COLUMNS) - 1) + "|",
    ]
    for row, measured in record["rows"][JAX].items():
        low, high = (f"{1e3 * seconds:.0f}" for seconds in measured["quartiles"])
        slow = measured["unoptimised_convolutions"]
        cells = (
            _LABELS.get(row, row),
            measured["passes"],
            f"{1e3 * measured['median']:.0f}",
            f"({low} - {high})",
            f"{measured['images_per_second']:.0f}",
            f"{measured['time_ratio']:.2f}",
            f"{measured['flops'] / 1e9:.1f}",
            f"{measured['flop_ratio']:.2f}",
            f"{measured['floor']:.2f}",
            f"{measured['temporary_bytes'] / 1e6:.0f}",
            f"{measured['compile_seconds']:.1f}",
            "-" if slow is None else str(slow),
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", _LEGEND]
    others = [who for who in record["rows"] if who != JAX]
    return "\n".join(lines + (["", *_beside(record["rows"], others)] if others else []))


def _beside(rows: Mapping[str, Any], others: Sequence[str]) -> list[str]:
    """JAX and PyTorch side by side: milliseconds a step, and JAX against the faster eager layout."""
    eager = [who for who in others if "eager" in who]
    lines = [
        "| row, ms a step | JAX | " + " | ".join(others) + " | JAX / faster eager layout |",
        "|---" + "|---:" * (len(others) + 2) + "|",
    ]
    for row, measured in rows[JAX].items():
        medians = {who: rows[who][row]["median"] for who in others if row in rows[who]}
        if medians:
            cells = [f"{1e3 * medians[who]:.0f}" if who in medians else "-" for who in others]
            fastest = min(medians[who] for who in eager)
            cells = [
                f"{1e3 * measured['median']:.0f}",
                *cells,
                f"**{measured['median'] / fastest:.2f}**",
            ]
            lines.append(f"| {_LABELS.get(row, row)} | " + " | ".join(cells) + " |")
    return lines


def draw(record: Mapping[str, Any], path: pathlib.Path) -> None:
    """Bars of time ratio, FLOP ratio and floor, a group a row."""
    rows = record["rows"][JAX]
    # Okabe and Ito's colours, told apart by the colour-blind too.
    bars = (
        ("time_ratio", "time", "#0072B2"),
        ("flop_ratio", "FLOPs", "#E69F00"),
        ("floor", "floor", "#999999"),
    )
    figure, axes = plt.subplots(figsize=(7.5, 0.62 * len(rows) + 1.3), layout="constrained")
    for index, (key, label, colour) in enumerate(bars):
        places = [place + 0.27 * (index - 1) for place in range(len(rows))]
        values = [measured[key] for measured in rows.values()]
        drawn = axes.barh(places, values, height=0.25, color=colour, label=label)
        axes.bar_label(drawn, fmt="%.2f", padding=3, fontsize=7)
    axes.set_yticks(range(len(rows)), [_LABELS.get(row, row).replace(" (", "\n(") for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("cost of a training step, plain = 1")
    axes.margins(x=0.09)
    axes.set_title(
        f"{record['student']} <- {record['teacher']}, batch {record['batch']}, {record['precision']}, "
        f"{record['device']}",
        fontsize=9,
    )
    axes.legend(loc="upper right", frameon=False)  # beside the plain step, whose bars are short
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(record: Mapping[str, Any], folder: pathlib.Path) -> str:
    """Write the three files; return the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    table = markdown(record)
    (folder / f"{_NAME}.json").write_text(json.dumps(record, indent=2) + "\n")
    (folder / f"{_NAME}.md").write_text(table + "\n")
    draw(record, folder / f"{_NAME}.png")
    return table
