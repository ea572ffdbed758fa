"""Tables of numbers from the committed files of results/: a header and rows of text.

The site shows them (directive ``results``), and the test suite compares the README's tables with them.
"""

import pathlib
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from at_jax import terms
from at_jax.tables import differences
from at_jax.tables.rows import by_pair

ROOT = pathlib.Path(__file__).parents[2]
Content = Mapping[str, Any]  # of a JSON file
Table = tuple[list[str], list[list[str]]]


def errors(study: Content) -> Table:
    """Errors of a study, in percent: results/<study>/table.json."""
    pairs = by_pair(row for row in study["rows"] if row["seeds"])
    header = ["method", "mean", "lowest to highest", "seeds", "difference from labels only"]
    rows = []
    for pair, members in pairs.items():
        compared = differences.from_labels_only(members, differences.LAST)
        for row in members:
            name = f"{terms.title(row['method'])} ({row['label']})"
            if len(pairs) > 1:
                name += f", {pair.rpartition(', ')[2].replace('<-', 'from')}"
            span = f"{row['lowest']:.2f} to {row['highest']:.2f}"
            difference = str(compared[row["name"]] or "")
            rows.append([name, f"{row['mean']:.2f}", span, str(len(row["seeds"])), difference])
    for teacher in study["teachers"]:
        if teacher["run"]:
            error = f"{teacher['run']['test_error']:.2f}"
            rows.append([f"teacher, {teacher['teacher']}", error, "", "1", ""])
    return header, rows


def trials(study: Content) -> Table:
    """Values that a search chose, and the validation errors: results/<study>/search/table.json."""
    header = ["method", "values tried", "chosen", "error of the chosen", "error of the others"]
    rows = []
    for label, keys in study["search"]["space"].items():
        found = [row for row in study["rows"] if row["label"] == label]
        best = study["search"]["chosen"].get(label, {"rows": [], "values": {}})
        tried = ", ".join(f"{key} {' '.join(values)}" for key, values in keys.items())
        values = ", ".join(f"{key} {value}" for key, value in best["values"].items())
        # A label may have rows in several pairs: the error of its values is the mean over them.
        others: dict[str, list[Any]] = {}
        for row in found:
            if row["name"] not in best["rows"] and (row["diverged"] or row["seeds"]):
                others.setdefault(str([row["changes"][key] for key in keys]), []).append(row)
        errors = [
            "diverged"
            if any(row["diverged"] for row in members)
            else f"{statistics.fmean(s['test_error'] for row in members for s in row['seeds']):.2f}"
            for members in others.values()
        ]
        error = f"{best['error']:.2f}" if best["rows"] else ""
        rows.append([label, tried, values, error, ", ".join(errors)])
    return header, rows


def caption(study: Content) -> str:
    """Setting of a study, and the meaning of its differences."""
    compared = "Differences: mean over seeds, and half the 95 % confidence interval."
    return f"{setting(study)} {compared}"


def setting(study: Content) -> str:
    """Setting of a study or a search in one sentence."""
    runs = [run for row in study["rows"] for run in row["seeds"]]
    versions = ", ".join(
        f"{name} {_all(run['versions'][name] for run in runs)}"
        for name in ("at_jax", "jax", "flax")
    )
    devices, days = _all(run["device"] for run in runs), _all(run["finished"][:10] for run in runs)
    pairs = dict.fromkeys(row["pair"].partition(",")[0] for row in study["rows"])
    return (
        f"{study['data']}, {' and '.join(pairs).replace('<-', 'from')}, {study['epochs']} epochs of batch "
        f"{study['batch_size']}, error in percent on the {study['measured_on']} images; {devices}, "
        f"{versions}, {days}."
    )


def _all(found: Iterable[str]) -> str:
    """Join the different texts."""
    return " and ".join(dict.fromkeys(found))


def cost_on_cpu(content: Content) -> Table:
    """Cost of a training step by method: results/double_backprop.json."""
    measured = content["rows"]
    eager = [rows for name, rows in measured.items() if "eager" in name]
    header = ["method", "passes", "ms per step", "time to plain", "multiply-adds to plain",
              "time to faster eager PyTorch"]  # fmt: skip
    rows = []
    for method, row in measured["JAX"].items():
        fastest = min((other[method]["median"] for other in eager if method in other), default=None)
        rows.append(
            [
                "plain (none)" if method == "none" else method,
                row["passes"].replace("-", "−"),
                f"{1000 * row['median']:.0f}",
                f"{row['time_ratio']:.2f}",
                f"{row['flop_ratio']:.2f}",
                f"{row['median'] / fastest:.2f}" if fastest else "not measured",
            ]
        )
    return header, rows


def steps_on_gpu(content: Content) -> Table:
    """Training steps per second of one GPU: results/gpu/<device>.json."""
    measured = content["rows"]["steps"]
    # "wrn_16_1 <- wrn_16_2, 32 px, batch 128, plain, TF32; PyTorch eager": setting; how
    settings: dict[str, dict[str, Any]] = {}
    for name, row in measured.items():
        setting, _, how = name.partition("; ")
        settings.setdefault(setting, {})[how] = f"{row['steps_per_second']:.3g}"
    columns = list(dict.fromkeys(how for found in settings.values() for how in found))
    header = ["setting", *columns]
    rows = [
        [setting.replace("<-", "from"), *(found.get(how, "not measured") for how in columns)]
        for setting, found in settings.items()
    ]
    return header, rows


def convolutions_on_gpu(content: Content) -> Table:
    """Second order of the convolutions on one GPU, in ms: results/gpu/<device>.json."""
    measured = content["rows"]["convolutions"]
    columns = {"family, lax forms": "at_jax", "lax": "lax", "PyTorch": "PyTorch"}
    header = ["convolution", *columns.values()]
    rows = [
        [name, *(f"{row[column][1]:.3g}" if column in row else "" for column in columns)]
        for name, row in measured.items()
    ]
    return header, rows


def conditions_on_gpu(content: Content) -> str:
    """Device, versions and date of a GPU measurement."""
    conditions = content["conditions"]
    versions = ", ".join(f"{name} {value}" for name, value in conditions["versions"].items())
    return f"{conditions['device']}, {versions}, {conditions['date']}."


def conditions_on_cpu(content: Content) -> str:
    """Setting of the double-backprop measurement."""
    versions = ", ".join(f"{name} {value}" for name, value in content["versions"].items())
    return (
        f"{content['student']} from {content['teacher']}, batch {content['batch']}, "
        f"{content['image_size']} pixels, {content['dtype']}; {content['device']} ({content['host']}), "
        f"{versions}; medians of {content['rounds']} rounds, {content['date']}."
    )


# Name for the directive to functions of the content: the table, and its setting.
KINDS = {
    "errors": (errors, caption),
    "trials": (trials, setting),
    "cpu": (cost_on_cpu, conditions_on_cpu),
    "gpu-steps": (steps_on_gpu, conditions_on_gpu),
    "gpu-convolutions": (convolutions_on_gpu, conditions_on_gpu),
}
