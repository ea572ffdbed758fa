"""Search of hyperparameters on held-out training images, with the same number of trials for each method.

A search is a table whose rows are trials. It has the teachers, seeds, and resumption of any table, and
never reads the test set.
"""

import dataclasses
import itertools
import math
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from at_jax import terms
from at_jax.errors import UserError
from at_jax.tables import changes
from at_jax.tables.rows import Row, Table

__all__ = ["Search", "Space", "merged", "parse", "table_of", "with_held_out", "words"]

_FLAG = "--search"
_RATE = "optimizer.learning_rate"
_HELD_OUT = "data.validation_examples"
# Label of rows to key to values, as texts.
Space = dict[str, dict[str, list[str]]]


class Search(NamedTuple):
    """A search, as it is in table.json.

    Attributes:
      space: values to try.
      is_automatic: labels only has no values of its own; it tries learning rates around that of the table.
      chosen: label to the values that were chosen, see :func:`at_jax.tables.trials.chosen`.
    """

    space: Space
    is_automatic: bool
    chosen: Mapping[str, Any] = types.MappingProxyType({})


def parse(texts: Sequence[str], rows: Sequence[Row]) -> Space:
    """Parse the keys and values to try.

    A key of a term's section, such as ``at.beta``, is tried for the rows of that name, and other keys for
    labels only, unless the rows are given: ``ROWS:KEY=V1,V2``. Several keys of one label span a grid.

    Args:
      texts: ``[ROWS:]KEY=V1,V2,...``.
      rows: chosen rows of the table.

    Returns:
      The values.

    Raises:
      UserError: for an unknown key or row, or a value of the wrong type.
    """
    space: Space = {}
    for text in texts:
        scope, key, tried = changes.split(text, _FLAG)
        section = key.partition(".")[0]
        scope = scope or (section if section in terms.TERMS else "none")
        values = [changes.text_of(changes.value_of(key, value, _FLAG)) for value in _split(tried)]
        for label in changes.labels(scope, rows, _FLAG):
            # Without an effect on the loss, all trials would be the same.
            if not changes.is_used(key, next(row for row in rows if row.label == label)):
                raise UserError(
                    f"{_FLAG}: {key} must be a key of the method that tries it, got {label}: name other "
                    f"rows, as in {_FLAG} ROWS:{key}=V1,V2"
                )
            keys = space.setdefault(label, {})
            keys[key] = list(dict.fromkeys([*keys.get(key, []), *values]))
    return space


def _split(text: str) -> list[str]:
    """Split values at commas outside of parentheses.

    >>> _split("0.1,0.2"), _split("(5,9),(3,)"), _split("((1,2),(3,4)),()")
    (['0.1', '0.2'], ['(5,9)', '(3,)'], ['((1,2),(3,4))', '()'])
    """
    values, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth <= 0:
            values.append("")
        else:
            values[-1] += character
    return [value.strip() for value in values]


def merged(before: Search | None, space: Space, rows: Sequence[Row]) -> Search:
    """Add values to those of earlier commands: a trial that was made is never left out.

    Args:
      before: of the earlier table.json.
      space: values of this command.
      rows: those that are searched.

    Returns:
      The values of both. Labels only tries learning rates of its own if no command gave it values.
    """
    alone = _labels_only(rows)
    is_automatic = alone not in space and (before is None or before.is_automatic)
    result: Space = {}
    for found in (before.space if before else {}, space):
        for label, keys in found.items():
            if is_automatic and label == alone:
                continue
            own = result.setdefault(label, {})
            for key, values in keys.items():
                own[key] = list(dict.fromkeys([*own.get(key, ()), *values]))
    # Sorted, as in table.json: the name of a trial must not depend on the order of the options.
    result = {label: dict(sorted(keys.items())) for label, keys in result.items()}
    return Search(result, is_automatic)


def with_held_out(table: Table, given: Sequence[changes.Change]) -> tuple[changes.Change, ...]:
    """Changes of a search: held-out images of the table's own number, unless the user sets another.

    Raises:
      UserError: if the user sets none.
    """
    counts = [change.value for change in given if change.key == _HELD_OUT]
    if not counts and table.held_out:
        return (changes.parse(f"{_HELD_OUT}={table.held_out}"), *given)
    if not counts or not counts[-1]:
        fix = "leave it out, or set the" if table.held_out else "set the"
        raise UserError(
            f"{_FLAG} measures on held-out training images, got {_HELD_OUT}=0: {fix} number of images, as "
            f"in --set {_HELD_OUT}={table.held_out or 500}"
        )
    return tuple(given)


def table_of(
    table: Table, rows: Sequence[Row], search: Search, rate: float
) -> tuple[Table, Search]:
    """Make the table of the trials.

    Args:
      table: whose rows are searched.
      rows: chosen ones. Those without values are left out.
      search: values to try.
      rate: learning rate of the table.

    Returns:
      The table, and the search with the learning rates that labels only tries if it has no values: the
      table's own, multiplied by powers of two.

    Raises:
      UserError: if rows have different numbers of trials, or are defined by a key that is tried.
    """
    space, alone = search.space, _labels_only(rows)
    if search.is_automatic and alone and space:
        count = max(map(_count, space.values()))
        space = {alone: {_RATE: _rates(rate, count)}} | space
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
    made = dataclasses.replace(table, title=title, rows=tuple(trials), teachers={}, paper_epochs=0)
    return made, search._replace(space=space)


def words(search: Search) -> list[str]:
    """Options that repeat a search.

    >>> words(Search({"at": {"at.beta": ["1", "10"]}}, is_automatic=True))
    ['--search', 'at:at.beta=1,10']
    """
    return [
        word
        for label, keys in search.space.items()
        for key, values in keys.items()
        if not (search.is_automatic and key == _RATE and label == "none")
        for word in (_FLAG, f"{label}:{key}={','.join(values)}")
    ]


def _labels_only(rows: Sequence[Row]) -> str:
    return next((row.label for row in rows if row.method == "none"), "")


def _count(keys: Mapping[str, Sequence[str]]) -> int:
    """Number of trials of a grid."""
    return math.prod(map(len, keys.values()))


def _rates(rate: float, count: int) -> list[str]:
    """Learning rates around one; more of them include fewer."""
    powers = range(-(count // 2), count - count // 2)
    return [changes.text_of(rate * 2.0**power) for power in powers]


def _trials(row: Row, keys: Mapping[str, Sequence[str]]) -> list[Row]:
    """Rows of a grid of values, in place of a row."""
    for key in keys:
        if changes.defines(row, key):
            raise UserError(
                f"{_FLAG} {key}: row {row.name} is defined by {key}={row.changes[key]}: try another key, "
                "or choose other rows with --rows"
            )
    trials = []
    for texts in itertools.product(*keys.values()):
        tried = dict(zip(keys, texts, strict=True))
        values = {key: changes.value_of(key, text, _FLAG) for key, text in tried.items()}
        name = "-".join(f"{key}={text}" for key, text in tried.items())
        name = re.sub(r"[^\w.=+(),-]", "_", name)  # a part of a path
        trials.append(
            dataclasses.replace(
                row,
                changes={**row.changes, **values},
                variant="-".join(filter(None, [row.variant, name])),
                tried=tuple(keys),
                paper=None,
            )
        )
    return trials
