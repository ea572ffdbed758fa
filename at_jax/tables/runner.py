"""Train the cells of a table that are not finished yet; one that fails does not stop the others."""

import contextlib
import json
import pathlib
import statistics
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import filelock

from at_jax import checkpoint, loop, run_directory
from at_jax.report import duration, say
from at_jax.tables.plan import Cell

FAILURE = "failure.json"
# How often another process's teacher is looked for.
_SECONDS_BETWEEN_LOOKS = 5.0


def failure_of(workdir: pathlib.Path) -> dict[str, Any] | None:
    """What stopped a run that failed, None where nothing did, or it was finished since."""
    try:
        failure = json.loads((workdir / FAILURE).read_text())
    except FileNotFoundError:
        return None
    return None if run_directory.read_result(workdir) else failure


def checkpointed_steps(workdir: pathlib.Path) -> list[int]:
    """The steps that a run has checkpoints of, ascending."""
    names = [path.name for path in (workdir / checkpoint.FOLDER).glob("*")]
    return sorted(int(name) for name in names if name.isdecimal())


class Progress:
    """Cells done, cells left, time left. Cells of other shards are not in it."""

    def __init__(self, cells: Sequence[Cell]):
        self._cells = list(cells)
        self.failed: set[str] = set()  # in this start: what failed before is tried again

    def line(self) -> str:
        """For example ``3 of 13 cells done, 10 left, about 1:05:00``."""
        results = {cell.name: run_directory.read_result(cell.workdir) for cell in self._cells}
        done = [cell for cell in self._cells if results[cell.name]]
        unfinished = [cell for cell in self._cells if not results[cell.name]]
        failed = [cell for cell in unfinished if cell.name in self.failed]
        left = [cell for cell in unfinished if cell.name not in self.failed]
        seconds: dict[tuple, list[float]] = {}
        for cell in done:
            result = results[cell.name]
            # Students of one program took this long all together.
            took = result["wall_seconds"] / result.get("trained_together", 1)
            seconds.setdefault(_kind(cell), []).append(took)
        parts = [f"{len(done)} of {len(self._cells)} cells done"]
        parts += [f"{len(failed)} failed"] if failed else []
        parts += [f"{len(left)} left"]
        if seconds and left:
            # A cell takes what others of its kind took; where there is none yet, what any took.
            overall = statistics.fmean(s for kind in seconds.values() for s in kind)
            expected = sum(statistics.fmean(seconds.get(_kind(cell), [overall])) for cell in left)
            parts.append(f"about {duration(expected)}")
        return ", ".join(parts)


def _kind(cell: Cell) -> tuple[str, str, str]:
    """What decides how long a cell takes."""
    teacher = cell.config.teacher.model if cell.needs else ""
    return cell.config.student, cell.config.method, teacher


def run_cells(
    cells: Sequence[Cell],
    *,
    groups: Callable[[Sequence[Cell]], list[list[Cell]]],
    after: Callable[[], None],
) -> None:
    """Train what is not finished.

    Args:
      cells: in an order in which teachers come before their students.
      groups: which of them are trained in one program.
      after: is called whenever a group is done, for what can be shown by then.

    Raises:
      loop.Interrupted: after Ctrl-C, once all is saved.
    """
    progress = Progress(cells)
    say(progress.line())
    teachers = {cell.needs for cell in cells}
    # Teachers alone and first: what learns from one has to find it whole.
    first = [cell for cell in cells if cell.workdir in teachers or cell.row is None]
    names = {cell.name for cell in first}
    rest = [
        cell
        for cell in cells
        if cell.name not in names and not run_directory.read_result(cell.workdir)
    ]
    # What failed before comes last and alone: it would take those of its program down again.
    doubtful = [cell for cell in rest if failure_of(cell.workdir)]
    sound = [cell for cell in rest if cell not in doubtful]
    for group in [*([cell] for cell in first), *groups(sound), *([cell] for cell in doubtful)]:
        with _locked(group, wait=group[0].workdir in teachers) as mine:
            mine = [cell for cell in mine if not run_directory.read_result(cell.workdir)]
            if not mine:
                continue
            for cell in mine:
                (cell.workdir / FAILURE).unlink(missing_ok=True)
            _run_group(mine, progress.failed)
        after()
        say(f"[{progress.line()}]")


@contextlib.contextmanager
def _locked(group: Sequence[Cell], *, wait: bool) -> Iterator[list[Cell]]:
    """The cells of a group that no other process is training; with `wait`, all of them in the end."""
    with contextlib.ExitStack() as stack:
        mine = []
        for cell in group:
            cell.workdir.parent.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(cell.workdir.parent / f"{cell.workdir.name}.lock")
            try:
                stack.enter_context(lock.acquire(timeout=0))
            except filelock.Timeout:
                if not wait:
                    say(f"{cell.name}: another process is training it, passed over")
                    continue
                say(f"{cell.name}: another process is training this teacher, waiting for it")
                stack.enter_context(lock.acquire(poll_interval=_SECONDS_BETWEEN_LOOKS))
            mine.append(cell)
        yield mine


def _run_group(group: list[Cell], failed: set[str]) -> None:
    """Train cells in one program; one that fails is written down, and the others go on without it."""
    unready = [c for c in group if c.needs and run_directory.read_result(c.needs) is None]
    for cell in unready:
        _fail(cell, f"its teacher, {cell.needs}, is not finished", "", failed)
    group = [cell for cell in group if cell not in unready]
    if not group:
        return
    say(f"--- {', '.join(cell.name for cell in group)}")
    try:
        _train(group)
    except loop.Interrupted:
        raise
    except Exception as error:  # whatever it is, the other cells are not to suffer from it
        culprits = [c for c in group if c.workdir.absolute() == getattr(error, "workdir", None)]
        if len(group) == 1:
            culprits = group
        for cell in culprits:
            _fail(cell, f"{type(error).__name__}: {error}", traceback.format_exc(), failed)
        left = [c for c in group if c not in culprits and not run_directory.read_result(c.workdir)]
        # Not known whose fault it was (of memory, say): each is tried alone.
        for part in [left] if culprits and left else [[cell] for cell in left]:
            _run_group(part, failed)


def _train(group: Sequence[Cell]) -> None:
    if len(group) == 1:
        loop.train_and_evaluate(group[0].config, group[0].workdir)
    else:
        loop.train_together([(cell.config, cell.workdir) for cell in group])


def _fail(cell: Cell, reason: str, trace: str, failed: set[str]) -> None:
    failed.add(cell.name)
    say(f"{cell.name} FAILED, the others go on: {reason}")
    run_directory.write_json(cell.workdir / FAILURE, {"reason": reason, "traceback": trace})
