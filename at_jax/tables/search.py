"""Search of hyperparameters on held-out training images, with the same number of trials for each method.

A search is a table whose rows are trials. It has the teachers, seeds, and resumption of any table, and
never reads the test set.
"""

import dataclasses
import itertools
import math
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from at_jax import terms
from at_jax.errors import UserError
from at_jax.tables import changes
from at_jax.tables.registry import Row, Table
from at_jax.training import json_files

__all__ = ["Space", "parse", "rows_of", "table_of", "tried", "with_held_out"]

_T = TypeVar("_T")
_FLAG = "--search"
_RATE = "optimizer.learning_rate"
_HELD_OUT = "data.validation_examples"
# Label of rows to key to values, as texts.
Space = dict[str, dict[str, list[str]]]


def parse(texts: Sequence[str], rows: Sequence[Row]) -> Space:
    """Parse the keys and values to try.

    A key of a term's section, such as ``at.beta``, is tried for the rows of that name, and other keys for
    labels only, unless the rows are given: ``ROWS:KEY=V1,V2``. Several keys of one label span a grid.

    Args:
      texts: ``[ROWS:]KEY=V1,V2,...``.
      rows: chosen rows of the table.

    Returns:
      The values, with the keys of a label sorted.

    Raises:
      UserError: for an unknown key or row, or a value of the wrong type.
    """
    space: Space = {}
    for text in texts:
        change = changes.parse(text, _FLAG)
        section = change.key.partition(".")[0]
        scope = change.scope or (section if section in terms.TERMS else "none")
        values = [
            changes.text_of(change.value(v, _FLAG)) for v in changes.split_values(change.text)
        ]
        for label in changes.labels(scope, rows, _FLAG):
            keys = space.setdefault(label, {})
            keys[change.key] = list(dict.fromkeys([*keys.get(change.key, []), *values]))
    # Sorted, as in table.json: the name of a trial must not depend on the order of the options.
    return {label: dict(sorted(keys.items())) for label, keys in space.items()}


def tried(texts: Sequence[str], rows: Sequence[Row], path: pathlib.Path) -> Space:
    """Collect the values of all commands so far: a trial that was made is never left out.

    Args:
      texts: of this command and earlier ones in this folder.
      rows: chosen rows of the table.
      path: table.json of the search, which may hold values of a folder that is gone.

    Raises:
      UserError: as :func:`parse`, or if the file is damaged.
    """
    before = _before(
        path,
        lambda found: [
            f"{label}:{key}={','.join(values)}"
            for label, keys in found["search"]["space"].items()
            for key, values in keys.items()
        ],
    )
    return parse([*before, *texts], rows)


def rows_of(table: Table, path: pathlib.Path) -> list[str]:
    """Names of the rows that have trials in table.json.

    Args:
      table: whose rows are searched.
      path: table.json of the search.

    Raises:
      UserError: if the file is damaged.
    """
    there = _before(path, lambda found: [(row["pair"], row["label"]) for row in found["rows"]])
    return [row.name for row in table.rows if (row.pair, row.label) in there]


def _before(path: pathlib.Path, read: Callable[[Mapping[str, Any]], list[_T]]) -> list[_T]:
    """What table.json holds of earlier commands; nothing if there is none."""
    try:
        return read(json_files.read(path))
    except FileNotFoundError:
        return []
    except (json_files.Damaged, KeyError, TypeError, AttributeError) as damaged:
        raise UserError(
            f"{path} is no search, or damaged ({damaged}): restore it, choose another --out, or delete it"
        ) from damaged


def with_held_out(table: Table, given: Sequence[str]) -> list[str]:
    """Changes of a search: held-out images of the table's own number, unless the user sets another.

    Raises:
      UserError: if the user sets none.
    """
    counts = [change for change in map(changes.parse, given) if change.key == _HELD_OUT]
    if not counts:
        return [f"{_HELD_OUT}={table.held_out}", *given]
    if not counts[-1].value():
        raise UserError(
            f"{_FLAG} measures on held-out training images, got {_HELD_OUT}=0: leave it out, or set the "
            f"number of images, as in --set {_HELD_OUT}={table.held_out}"
        )
    return list(given)


def table_of(table: Table, rows: Sequence[Row], space: Space, rate: float) -> tuple[Table, Space]:
    """Make the table of the trials.

    Args:
      table: whose rows are searched.
      rows: chosen ones. Those without values are left out.
      space: values to try.
      rate: learning rate of the table.

    Returns:
      The table, and the space with the learning rates that labels only tries if it has no values: the
      table's own, multiplied by powers of two.

    Raises:
      UserError: if rows have different numbers of trials, or are defined by a key that is tried.
    """
    alone = next((row.label for row in rows if row.method == "none"), "")
    given = {label: keys for label, keys in space.items() if label != alone}
    if given and alone and _is_automatic(space.get(alone), rate):
        space = {alone: {_RATE: _rates(rate, _count(next(iter(given.values()))))}} | given
    counts = {label: _count(keys) for label, keys in space.items()}
    if len(set(counts.values())) > 1:
        numbers = ", ".join(f"{label} {count}" for label, count in counts.items())
        raise UserError(
            f"{_FLAG} must give every method the same number of trials, got {numbers}: give each as many "
            "values"
        )
    trials = [
        trial for row in rows if row.label in space for trial in _trials(row, space[row.label])
    ]
    title = f"Search on held-out images: {table.title}"
    return dataclasses.replace(
        table, title=title, rows=tuple(trials), teachers={}, paper_epochs=0
    ), space


def _count(keys: Mapping[str, Sequence[str]]) -> int:
    """Number of trials of a grid."""
    return math.prod(map(len, keys.values()))


def _rates(rate: float, count: int) -> list[str]:
    """Learning rates around one; more of them include fewer."""
    powers = range(-(count // 2), count - count // 2)
    return [changes.text_of(rate * 2.0**power) for power in powers]


def _is_automatic(keys: Mapping[str, Sequence[str]] | None, rate: float) -> bool:
    """Whether the values of labels only are none, or those of an earlier command without any."""
    if keys is None:
        return True
    return list(keys) == [_RATE] and list(keys[_RATE]) == _rates(rate, len(keys[_RATE]))


def _trials(row: Row, keys: Mapping[str, Sequence[str]]) -> list[Row]:
    trials = []
    if fixed := [key for key in keys if changes.defines(row, key)]:
        raise UserError(
            f"{_FLAG} {fixed[0]}: row {row.name} is defined by {fixed[0]}={row.changes[fixed[0]]}: try "
            "another key, or choose other rows with --rows"
        )
    for texts in itertools.product(*keys.values()):
        values = {
            key: changes.Change(row.label, key, text).value(flag=_FLAG)
            for key, text in zip(keys, texts, strict=True)
        }
        name = "-".join(f"{key}={text}" for key, text in zip(keys, texts, strict=True))
        # A part of a path.
        variant = "-".join(filter(None, [row.variant, re.sub(r"[^\w.=+(),-]", "_", name)]))
        trials.append(
            dataclasses.replace(
                row,
                changes={**row.changes, **values},
                variant=variant,
                tried=tuple(keys),
                paper=None,
            )
        )
    return trials
