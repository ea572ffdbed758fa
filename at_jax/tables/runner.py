"""Train the cells of a table that are not finished yet; one that fails does not stop the others."""

import contextlib
import json
import pathlib
import statistics
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import filelock

from at_jax import loop, run_directory
from at_jax.report import duration, say
from at_jax.tables.plan import Cell

FAILURE = "failure.json"
# How often another process's teacher is looked for.
_SECONDS_BETWEEN_LOOKS = 5.0


def failure_of(workdir: pathlib.Path) -> dict[str, Any] | None:
    """What stopped a run that failed, None where nothing did."""
    path = workdir / FAILURE
    return json.loads(path.read_text()) if path.exists() else None


class Progress:
    """Cells done, cells left, time left. Cells of other shards are not in it."""

    def __init__(self, cells: Sequence[Cell]):
        self._cells = list(cells)

    def line(self) -> str:
        """For example ``3 of 13 cells done, 10 left, about 1:05:00``."""
        results = {cell.name: run_directory.read_result(cell.workdir) for cell in self._cells}
        done = [cell for cell in self._cells if results[cell.name]]
        failed = [c for c in self._cells if not results[c.name] and failure_of(c.workdir)]
        left = [c for c in self._cells if not results[c.name] and c not in failed]
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
    for cell in cells:
        # What failed before is tried again.
        (cell.workdir / FAILURE).unlink(missing_ok=True)
    progress = Progress(cells)
    say(progress.line())
    teachers = {cell.needs for cell in cells}
    # Teachers alone and first: what learns from one has to find it whole.
    first = [[cell] for cell in cells if cell.workdir in teachers or cell.row is None]
    rest = [c for c in cells if [c] not in first]
    for group in [
        *first,
        *groups([cell for cell in rest if not run_directory.read_result(cell.workdir)]),
    ]:
        is_teacher = group[0].workdir in teachers
        with _locked(group, wait=is_teacher) as mine:
            mine = [cell for cell in mine if not run_directory.read_result(cell.workdir)]
            if not mine:
                continue
            _run_group(mine)
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


def _run_group(group: list[Cell]) -> None:
    """Train cells in one program; those that fail are written down and left out of the next try."""
    while group:
        unready = [
            cell for cell in group if cell.needs and run_directory.read_result(cell.needs) is None
        ]
        for cell in unready:
            _fail(cell, f"its teacher, {cell.needs}, is not finished", "")
        group = [cell for cell in group if cell not in unready]
        if not group:
            return
        say(f"--- {', '.join(cell.name for cell in group)}")
        try:
            _train(group)
            return
        except loop.Interrupted:
            raise
        except Exception as error:  # whatever it is, the other cells are not to suffer from it
            culprits = [c for c in group if c.workdir.absolute() == getattr(error, "workdir", None)]
            for cell in culprits or group:
                _fail(cell, f"{type(error).__name__}: {error}", traceback.format_exc())
            group = [cell for cell in group if culprits and cell not in culprits]


def _train(group: Sequence[Cell]) -> None:
    if len(group) == 1:
        loop.train_and_evaluate(group[0].config, group[0].workdir)
    else:
        loop.train_together([(cell.config, cell.workdir) for cell in group])


def _fail(cell: Cell, reason: str, trace: str) -> None:
    say(f"{cell.name} FAILED, the others go on: {reason}")
    run_directory.write_json(cell.workdir / FAILURE, {"reason": reason, "traceback": trace})
