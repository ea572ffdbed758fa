"""SIGKILL of a run, and the same command again, until it is finished.

The run must then equal one that was never killed: parameters, statistics and momentum to the last bit, and
each epoch once, in order.
"""

import pathlib
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from benchmarks.faults import small_run
from benchmarks.faults.row import Row

__all__ = ["run"]

_ROOT = pathlib.Path(__file__).parents[2]
_EPOCHS = 20
_LONGEST_SECONDS = 600.0  # of one start
_POLL_SECONDS = 0.002


def run(count: int, folder: pathlib.Path, seed: int) -> Row:
    """Kill runs, each several times.

    Args:
      count: number of kills.
      folder: scratch.
      seed: of the moments.
    """
    rng = random.Random(seed)
    cache, whole = folder / "cache", folder / "whole"
    seconds, failures = _undisturbed(whole, cache)
    moments = [list(_MOMENTS)[index % len(_MOMENTS)] for index in range(count)]
    done = 0
    for number in range(count):
        if done == count:
            break
        workdir = folder / f"killed-{number}"
        killed = []
        for moment in moments[done:]:
            if not _start_and_kill(workdir, cache, moment, rng.uniform(0, seconds)):
                break
            killed.append(moment)
        done += len(killed)
        what = f"run {number}, killed {', '.join(killed) or 'never'}"
        failures += [f"{what}: {problem}" for problem in _finish(workdir, cache, whole)]
    if done < count:
        failures.append(f"only {done} of {count} runs were alive at the moment of their kill")
    return Row("SIGKILL, and the same command again", done, tuple(failures))


def _undisturbed(workdir: pathlib.Path, cache: pathlib.Path) -> tuple[float, list[str]]:
    """Duration of the second of two runs: the first one compiles."""
    failures = []
    for folder in (workdir.with_name("first"), workdir):
        began = time.monotonic()
        process = _start(folder, cache)
        code, error = _end(process)
        if code:
            failures.append(f"the undisturbed run ended with {code}: {error}")
    return time.monotonic() - began, failures


def _start(workdir: pathlib.Path, cache: pathlib.Path) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "benchmarks.faults.small_run", str(workdir), str(cache), str(_EPOCHS), "1",
    ]  # fmt: skip
    return subprocess.Popen(
        command, cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code, and the last line of stderr."""
    try:
        _, error = process.communicate(timeout=_LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return 1, f"no end after {_LONGEST_SECONDS:.0f} seconds"
    return process.returncode, error.strip().splitlines()[-1] if error.strip() else ""


def _start_and_kill(
    workdir: pathlib.Path, cache: pathlib.Path, moment: str, seconds: float
) -> bool:
    """Start the run and kill it; False if it ended before."""
    process = _start(workdir, cache)
    began = time.monotonic()
    is_due = _MOMENTS[moment](workdir, began + seconds)
    while process.poll() is None and not is_due():
        if time.monotonic() - began > _LONGEST_SECONDS:
            break
        time.sleep(_POLL_SECONDS)
    alive = process.poll() is None
    process.kill()
    process.communicate()
    return alive


def _finish(workdir: pathlib.Path, cache: pathlib.Path, whole: pathlib.Path) -> Iterator[str]:
    """Start once more, and compare with the undisturbed run."""
    code, error = _end(_start(workdir, cache))
    if code:
        yield f"the last start ended with {code}: {error}"
        return
    if small_run.lines(workdir) != small_run.lines(whole):
        yield f"epochs {[line['epoch'] for line in small_run.lines(workdir)]}, or other metrics"
    (step, found), (last, expected) = small_run.state(workdir), small_run.state(whole)
    if step != last:
        yield f"its last checkpoint is of step {step}, not {last}"
    elif jax.tree.structure(found) != jax.tree.structure(expected):
        yield "its last checkpoint holds other arrays"
    else:
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
        differing = sum(not np.array_equal(a, b) for a, b in pairs)
        if differing:
            yield f"{differing} arrays differ"
    left = [path.name for path in (workdir / "checkpoints").iterdir() if not path.name.isdecimal()]
    if left:
        yield f"checkpoints/ holds {left}"


def _at_random(workdir: pathlib.Path, due: float) -> Callable[[], bool]:
    return lambda: time.monotonic() >= due


def _during_a_save(workdir: pathlib.Path, due: float) -> Callable[[], bool]:
    """While a checkpoint has its temporary name; the third one of this start."""
    seen: set[str] = set()

    def is_due() -> bool:
        seen.update(path.name for path in workdir.glob("checkpoints/*tmp*"))
        return len(seen) >= 3

    return is_due


def _after_a_line(workdir: pathlib.Path, due: float) -> Callable[[], bool]:
    """Just after the third line that this start writes."""
    path = workdir / "metrics.jsonl"

    def count() -> int:
        return path.read_bytes().count(b"\n") if path.exists() else 0

    known = [count()]

    def is_due() -> bool:
        now = count()
        known[0] = min(known[0], now)  # a resumed run drops lines first
        return now >= known[0] + 3

    return is_due


def _while_drawing(workdir: pathlib.Path, due: float) -> Callable[[], bool]:
    return lambda: (workdir / "result.json").exists()


_MOMENTS: dict[str, Callable[[pathlib.Path, float], Callable[[], bool]]] = {
    "at a random moment": _at_random,
    "during a save": _during_a_save,
    "just after a line": _after_a_line,
    "at another random moment": _at_random,
    "while drawing": _while_drawing,
}
