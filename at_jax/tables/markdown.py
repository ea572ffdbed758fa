"""Text of table.md, made from the numbers of table.json."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

from at_jax import terms
from at_jax.tables import differences
from at_jax.tables.changes import parse, text_of
from at_jax.tables.paper import Source
from at_jax.tables.plan import TEACHERS
from at_jax.tables.record import GIVEN
from at_jax.tables.rows import by_pair
from at_jax.training import collapse
from at_jax.training.console import counted

__all__ = ["render"]

_HEADER = (
    "method", "median", "mean", "lowest to highest", "seeds", "difference, last epoch",
    "difference, best epoch",
)  # fmt: skip
_DIFFERENCES = (
    "Differences are those from labels only, in percentage points, paired by seed: their mean, and half "
    "the width of the 95 % confidence interval of Student's t-distribution where there are several seeds."
)
_RIGHT = {"median", "mean", "lowest to highest"}
_TRIAL_HEADER = ("method", "values", "mean", "lowest to highest", "seeds", "")
_COMPARED = (differences.LAST, differences.BEST)


def render(summary: Mapping[str, Any]) -> str:
    """Format a table as Markdown.

    Args:
      summary: result of :func:`at_jax.tables.summary.summarize`.

    Returns:
      Markdown: the setting, one table for each pair of student and teacher, the runs that failed or are
      missing, the command, and the hardware and versions.
    """
    body = _trials(summary) if "search" in summary else _pairs(summary)
    lines = [f"# {summary['title']}", "", _setting(summary), "", *body]
    lines += _command(summary) + _provenance(summary)
    return "\n".join(lines).rstrip() + "\n"


def _pairs(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    source = Source(**summary["source"])
    header = [*_HEADER, source.heading, "status"] if _has_paper(summary) else _HEADER
    for pair, rows in by_pair(summary["rows"]).items():
        shared = _shared_changes(rows)
        compared = [differences.from_labels_only(rows, key) for key in _COMPARED]
        body = [_line(row, shared, compared) for row in rows]
        body += _teacher_lines(summary["teachers"], rows)
        # Without published results the header lacks the last two columns.
        body = [line[: len(header)] for line in body]
        lines += [f"## {pair}", "", *_table(header, body), ""]
    return lines


def _trials(summary: Mapping[str, Any]) -> list[str]:
    """The trials of a search, and the options that it chose."""
    lines, best = [], summary["search"]["chosen"]
    names = {name for each in best.values() for name in each["rows"]}
    for pair, rows in by_pair(summary["rows"]).items():
        body = []
        for row in rows:
            keys = sorted(summary["search"]["space"][row["label"]])
            values = [f"`{key}={text_of(row['changes'][key])}`" for key in keys]
            body.append(
                [
                    f"`{row['label']}`",
                    ", ".join(values),
                    "diverged" if row["diverged"] else _number(row["mean"]),
                    _range(row),
                    _seeds(row),
                    "chosen" if row["name"] in names else "",
                ]
            )
        lines += [f"## {pair}", "", *_table(_TRIAL_HEADER, body), ""]
    if best:
        chosen = " ".join(option for label in sorted(best) for option in best[label]["options"])
        lines += [f"Chosen, as options of the table: `{chosen}`", ""]
    return lines


def _setting(summary: Mapping[str, Any]) -> str:
    drops = ", ".join(map(str, summary["drop_epochs"]))
    steps = f"learning-rate drops after {drops}" if drops else "constant learning rate"
    schedule = f"schedule {summary['schedule']}" if summary["schedule"] != "steps" else steps
    space = summary["search"]["space"] if "search" in summary else {}
    if any("optimizer.schedule" in keys for keys in space.values()):
        schedule = "several schedules"
    first = (
        f"{summary['measured_on'].capitalize()} error in percent on {summary['data']}, after "
        f"{counted(summary['epochs'], 'epoch')} ({schedule}), batch size {summary['batch_size']}."
    )
    if _has_paper(summary):
        after = f", after {summary['paper_epochs']} epochs" if summary["paper_epochs"] else ""
        first += (
            f" The last two columns are from {summary['source']['name']}{after}; all other numbers were "
            "measured here."
        )
    paragraphs = [first, _search_note(space) if "search" in summary else _DIFFERENCES]
    if any(seed.get(collapse.KEY) for row in summary["rows"] for seed in row["seeds"]):
        paragraphs.append("A constant student gives all images the same class probabilities.")
    # The line of a given teacher says that it is.
    shown = [c for c in map(parse, summary["changes"]) if c.key not in TEACHERS]
    for which in ("all", "some"):
        if found := [c for c in shown if bool(c.rows) == (which == "some")]:
            paragraphs.append(f"Set for {which} rows: {', '.join(f'`{c}`' for c in found)}.")
    return "\n\n".join(paragraphs)


def _search_note(space: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    count = math.prod(map(len, next(iter(space.values())).values()))
    return (
        f"Each method has {count} trials, measured on training images that neither teacher nor student is "
        "trained on. The test set is not used. The values with the lowest mean error are chosen."
    )


def _has_paper(summary: Mapping[str, Any]) -> bool:
    return any(row["paper"] for row in summary["rows"])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _paper(paper: Mapping[str, Any] | None) -> list[str]:
    return [_number(paper["error"]), paper["status"]] if paper else ["", ""]


def _shared_changes(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Keys that all rows of a heading change to the same value: the heading says so."""
    first = rows[0]["changes"].items() if len(rows) > 1 else ()
    return {k for k, v in first if all(row["changes"].get(k) == v for row in rows)}


def _line(
    row: Mapping[str, Any],
    shared: set[str],
    compared: Sequence[Mapping[str, differences.Difference | None]],
) -> list[str]:
    changes = ", ".join(
        f"{key}={value}" for key, value in row["changes"].items() if key not in shared
    )
    note = terms.title("none") if row["method"] == "none" else changes
    return [
        f"`{row['label']}`" + (f" ({note})" if note else ""),
        _number(row["median"]),
        _number(row["mean"]),
        _range(row),
        _seeds(row),
        *(differences.shown(each[row["name"]], len(row["seeds"])) for each in compared),
        *_paper(row["paper"]),
    ]


def _range(row: Mapping[str, Any]) -> str:
    return f"{row['lowest']:.2f} to {row['highest']:.2f}" if row["seeds"] else ""


def _seeds(row: Mapping[str, Any]) -> str:
    total = sum(len(row[kind]) for kind in ("seeds", "failed", "missing", "diverged"))
    constant = sum(bool(seed.get(collapse.KEY)) for seed in row["seeds"])
    return f"{len(row['seeds'])} of {total}" + (f", {constant} constant" if constant else "")


def _teacher_lines(
    teachers: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> list[list[str]]:
    """The teachers of a pair: those that the table trained, or the one that the user gave."""
    lines, blank, name = [], [""] * len(_COMPARED), rows[0]["teacher"]
    trained = [each for each in teachers if each["teacher"] == name]
    for each in trained:
        error = _number(each["run"] and each["run"]["test_error"])
        seeds = _taught(each, rows) if len(trained) > 1 else ""
        paper = _paper(each["paper"])
        lines.append([f"teacher, {name}{seeds}", error, error, "", "1 run", *blank, *paper])
    # The students of one teacher have recorded the same error.
    if given := [seed[GIVEN] for row in rows for seed in row["seeds"] if GIVEN in seed]:
        error = _number(given[0])
        lines.append([f"teacher, {name}", error, error, "", "given", *blank, "", ""])
    return lines


def _taught(teacher: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Seeds of the students of a teacher, where a network was trained as a teacher several times."""
    run = (teacher["run"] or {}).get("run")
    methods = [row for row in rows if terms.needs_teacher(row["method"])]
    seeds = {s["seed"] for row in methods for s in row["seeds"] if s.get("teacher") == run}
    noun = "seeds" if len(seeds) > 1 else "seed"
    return f" (of {noun} {', '.join(map(str, sorted(seeds)))})" if seeds else ""


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---:" if column in _RIGHT else "---" for column in header]
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *body)]


def _command(summary: Mapping[str, Any]) -> list[str]:
    """The command that trains the table, or what is open."""
    lines = []
    for row in {row["name"]: row for row in summary["rows"]}.values():
        lines += [
            f"- `{row['name']}` seed {f['seed']} failed: {f['reason']}" for f in row["failed"]
        ]
        if row["missing"]:
            noun, seeds = "seeds" if len(row["missing"]) > 1 else "seed", map(str, row["missing"])
            lines.append(f"- `{row['name']}`: {noun} {', '.join(seeds)}")
    if not lines:
        return [f"Command: `{summary['command']}`", ""]
    return ["Open:", "", *lines, "", f"The command that trains them: `{summary['command']}`", ""]


def _provenance(summary: Mapping[str, Any]) -> list[str]:
    # By name and ID: a teacher may be the run of a row too, or have been trained several times.
    runs = {(t["name"], t["run"].get("run")): t["run"] for t in summary["teachers"] if t["run"]}
    for row in summary["rows"]:
        runs |= {(f"{row['name']}/seed{s['seed']}", s.get("run")): s for s in row["seeds"]}
    if not runs:
        return ["No run is finished yet."]
    days = sorted({run["finished"][:10] for run in runs.values()})
    setups = collections.Counter(
        (run["device"], _versions(run["versions"]), run["commit"]) for run in runs.values()
    )
    wall = sum(run["wall_seconds"] / (run["trained_together"] or 1) for run in runs.values())
    minutes, seconds = divmod(round(wall), 60)
    lines = [
        f"Measured {' to '.join(dict.fromkeys((days[0], days[-1])))}; total training time "
        f"{minutes // 60}:{minutes % 60:02}:{seconds:02} (h:mm:ss).",
        "",
    ]
    for (device, versions, commit), count in setups.most_common():
        lines.append(
            f"- {counted(count, 'run')} on {device}, {versions}, commit {commit or 'unknown'}"
        )
    together = sorted({run["trained_together"] or 1 for run in runs.values()} - {1})
    if together:
        lines += ["", f"Up to {max(together)} students were trained in one program."]
    return lines


def _versions(versions: Mapping[str, str] | None) -> str:
    return ", ".join(f"{name} {version}" for name, version in (versions or {}).items())
