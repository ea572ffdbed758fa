"""Results of the benchmark: JSON record, Markdown table and bar chart."""

import datetime
import json
import os
import pathlib
import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax
import jax
import jaxlib

from at_jax.distributed import devices
from benchmarks.double_backprop import chart, passes
from benchmarks.double_backprop.programs import split
from benchmarks.double_backprop.setting import Setting

__all__ = ["JAX", "Sample", "markdown", "read", "record", "write"]

JAX = "JAX"
_NAME = "double_backprop"
_COLUMNS = (
    "row", "passes", "ms per step", "(quartiles)", "images/s", "time ratio", "GFLOP", "FLOP ratio",
    "pass-count ratio", "temporary MB", "compile s", "slow convolutions",
)  # fmt: skip
_LEGEND = (
    "Ratios are relative to the plain step (labels only). GFLOP: two for each multiply-add of the "
    "convolutions and matrix products of the traced step, in their textbook forms (Winograd's needs "
    "fewer), before XLA removes those that other modes trace and do not use. "
    "Passes: S is a forward pass of the student, s of its first layer, T of the teacher. Pass-count ratio: "
    "the multiply-adds of these passes relative to those of 3S - s, for the library's mode of "
    "differentiation; elementwise work is not counted, and a measured ratio can be lower. Temporary MB: "
    "peak memory in addition to arguments and results. Slow convolutions: those for which XLA:CPU has no "
    "fast kernel (counted on CPU only)."
)
# The comparison with PyTorch has a table of each.
_TIMES = {"median": "median", "minimum": "minimum", "cpu_median": "CPU time of all threads, median"}


class Sample(NamedTuple):
    """Seconds per step: wall-clock time, and CPU time of all threads of the process."""

    wall: float
    cpu: float


def record(
    setting: Setting,
    programs: Mapping[tuple[str, str], Any],
    samples: Mapping[tuple[str, str], Sequence[Sample]],
    steps: int,
) -> dict[str, Any]:
    """Assemble the measurements and the conditions of the run.

    Args:
      setting: of the run.
      programs: (implementation, row) to program; those of JAX are analyzed too.
      samples: (implementation, row) to the times of each round.
      steps: number of steps that a sample is the mean of.
    """
    student, first_layer = passes.forward_cost(setting.module(setting.student), setting.image_size)
    teacher, _ = passes.forward_cost(setting.module(setting.teacher), setting.image_size)
    plain = passes.count("none").cost(student, first_layer, teacher)
    rows: dict[str, dict[str, Any]] = {}
    for (implementation, row), program in programs.items():
        measured = _summary(samples[implementation, row], setting.batch)
        if implementation == JAX:
            counted = passes.count(split(row)[0])
            measured |= program.analysis() | {
                "passes": str(counted),
                "predicted_ratio": counted.cost(student, first_layer, teacher) / plain,
            }
        rows.setdefault(implementation, {})[row] = measured
    for of_implementation in rows.values():
        for measured in of_implementation.values():
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
        "device": devices.describe(setting.devices),
        "host": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "precision": _precision(setting),
        "malloc": os.environ.get("GLIBC_TUNABLES", "default"),
        "versions": _versions(rows),
        "rounds": len(samples[JAX, "none"]),
        "steps_per_round": steps,
        "multiply_adds": {"S": student, "s": first_layer, "T": teacher},
        "rows": rows,
    }


def _precision(setting: Setting) -> str:
    """Arithmetic of the convolutions: float32 on an NVIDIA GPU is TF32 by default."""
    precision = jax.config.jax_default_matmul_precision
    on_gpu = setting.devices[0].platform == "gpu"
    if setting.dtype == "float32" and on_gpu and precision in (None, "default", "tensorfloat32"):
        return "float32 (TF32)"
    return setting.dtype


def _versions(rows: Mapping[str, Any]) -> dict[str, str]:
    found = {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "flax": flax.__version__,
    }
    if set(rows) - {JAX}:
        import torch

        found["torch"] = torch.__version__
    return found


def _summary(samples: Sequence[Sample], batch: int) -> dict[str, Any]:
    seconds = [sample.wall for sample in samples]
    median = statistics.median(seconds)
    low = high = median
    if len(seconds) > 1:
        low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {
        "median": median,
        "quartiles": [low, high],
        "images_per_second": batch / median,
        "minimum": min(seconds),
        "cpu_median": statistics.median(sample.cpu for sample in samples),
        "samples": seconds,
    }


def markdown(record: Mapping[str, Any]) -> str:
    """Format a record as tables, with the conditions above and a legend below."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [
        f"{record['student']} <- {record['teacher']}, batch {record['batch']}, {record['image_size']} "
        f"pixels, {record['precision']}; {record['device']} ({record['host']}); {versions}; medians of "
        f"{record['rounds']} interleaved rounds, steps per round: {record['steps_per_round']}; "
        f"malloc {record['malloc']}; {record['date']}.",
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|---" + "|---:" * (len(_COLUMNS) - 1) + "|",
    ]
    for row, measured in record["rows"][JAX].items():
        low, high = (f"{1e3 * seconds:.0f}" for seconds in measured["quartiles"])
        slow = measured["slow_convolutions"]
        cells = (
            chart.label(row),
            measured["passes"],
            f"{1e3 * measured['median']:.0f}",
            f"({low} - {high})",
            f"{measured['images_per_second']:.0f}",
            f"{measured['time_ratio']:.2f}",
            f"{measured['flops'] / 1e9:.1f}",
            f"{measured['flop_ratio']:.2f}",
            f"{measured['predicted_ratio']:.2f}",
            f"{measured['temporary_bytes'] / 1e6:.0f}",
            f"{measured['compile_seconds']:.1f}",
            "-" if slow is None else str(slow),
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", _LEGEND]
    others = [name for name in record["rows"] if name != JAX]
    if others:
        lines += ["", *_comparison(record["rows"], others)]
    return "\n".join(lines)


def _comparison(rows: Mapping[str, Any], others: Sequence[str]) -> list[str]:
    """Tables of JAX and PyTorch: milliseconds per step, and JAX relative to the faster eager layout."""
    eager = [name for name in others if "eager" in name]
    lines = []
    for key, title in _TIMES.items():
        if not all(key in measured for of_one in rows.values() for measured in of_one.values()):
            continue  # a record of an older version
        lines += [
            f"| {title}, ms per step | JAX | "
            + " | ".join(others)
            + " | JAX / faster eager layout |",
            "|---" + "|---:" * (len(others) + 2) + "|",
        ]
        for row, measured in rows[JAX].items():
            times = {name: rows[name][row][key] for name in others if row in rows[name]}
            if times:
                fastest = min(times[name] for name in eager)
                cells = [
                    f"{1e3 * measured[key]:.0f}",
                    *(f"{1e3 * times[name]:.0f}" if name in times else "-" for name in others),
                    f"**{measured[key] / fastest:.2f}**",
                ]
                lines.append(f"| {chart.label(row)} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines[:-1]


def write(record: Mapping[str, Any], folder: pathlib.Path) -> str:
    """Write the JSON record, the Markdown table and the chart; return the table."""
    folder.mkdir(parents=True, exist_ok=True)
    table = markdown(record)
    (folder / f"{_NAME}.json").write_text(json.dumps(record, indent=2) + "\n")
    (folder / f"{_NAME}.md").write_text(table + "\n")
    chart.draw(record, record["rows"][JAX], folder / f"{_NAME}.png")
    return table


def read(path: pathlib.Path) -> dict[str, Any]:
    """Read the JSON record of a run."""
    return json.loads(path.read_text())
