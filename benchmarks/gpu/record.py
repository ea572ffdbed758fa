"""Rows of a benchmark and their results, in a JSON file that a later run completes."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Record", "Row", "run"]

Measurement = Callable[[], dict[str, Any]]

# Rows that are compiled at once. XLA compiles outside Python's lock.
_AT_ONCE = 8


@dataclasses.dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
      section: table in which it appears.
      name: unique in its section.
      prepare: compiles, in a thread beside other rows, and returns the function that measures: it returns
        the results, which JSON can hold.
    """

    section: str
    name: str
    prepare: Callable[[], Measurement]


class Record:
    """Results in ``<folder>/<device>.json``.

    Results of other versions of the packages are moved to ``<device>.previous.json``.

    Args:
      folder: of the results.
      conditions: ``device``, ``versions`` and anything else that a reader must know.
    """

    def __init__(self, folder: pathlib.Path, conditions: dict[str, Any]):
        name = re.sub(r"[^a-z0-9]+", "_", conditions["device"].lower()).strip("_")
        self.path = folder / f"{name}.json"
        self.data: dict[str, Any] = {"conditions": conditions, "rows": {}}
        if self.path.exists():
            stored = json.loads(self.path.read_text())
            if stored["conditions"]["versions"] == conditions["versions"]:
                self.data = stored
            else:
                os.replace(self.path, self.path.with_suffix(".previous.json"))

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """Section to row to results; ``{"error": text}`` for a row that failed."""
        return self.data["rows"]

    def has(self, row: Row) -> bool:
        """Whether a row was measured; a row that failed is tried again."""
        found = self.rows.get(row.section, {}).get(row.name)
        return found is not None and "error" not in found

    def add(self, row: Row, result: dict[str, Any]) -> None:
        """Store the results of a row, and write the file."""
        self.rows.setdefault(row.section, {})[row.name] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # An interruption leaves the old file or the new one.
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.data, indent=1) + "\n")
        os.replace(new, self.path)


def run(record: Record, rows: Sequence[Row], seconds: float) -> list[Row]:
    """Measure the rows that the record lacks, in order, until the time is up.

    Several rows are compiled at once, then measured one after the other. A row that raises is stored with
    its error, and the next one is measured.

    Args:
      record: receives the results.
      rows: most important first.
      seconds: no row begins after this time.

    Returns:
      Rows that were not measured for lack of time.
    """
    end = time.monotonic() + seconds
    left = [row for row in rows if not record.has(row)]
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        while left and time.monotonic() < end:
            group = left[:_AT_ONCE]
            prepared = [pool.submit(row.prepare) for row in group]
            # Nothing may compile while a row is measured.
            concurrent.futures.wait(prepared)
            while prepared and time.monotonic() < end:
                row = left.pop(0)
                _measure(record, row, prepared.pop(0))
    return left


def _measure(record: Record, row: Row, prepared: concurrent.futures.Future[Measurement]) -> None:
    start = time.monotonic()
    try:
        result = prepared.result()()
    except Exception as error:  # of a compiler, a driver, or for lack of memory
        lines = (str(error).strip() or repr(error)).splitlines()
        result = {"error": f"{type(error).__name__}: {lines[0][:200]}"}
    record.add(row, result)
    text = result.get("error", "done")
    print(f"{row.section}: {row.name}: {text} ({time.monotonic() - start:.1f} s)", flush=True)
