"""Changes of config keys on the command line: ``[ROWS:]KEY=VALUE``.

``ROWS`` is a label of rows, as in the first column of a table, or else a method, whose terms may have any
order.
"""

import ast
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from at_jax import terms
from at_jax.errors import UserError
from at_jax.tables.rows import Row
from at_jax.training.config import default_config, default_values, flatten
from at_jax.training.key_names import nearest

__all__ = [
    "OF_ROWS", "ROW_KEYS", "Change", "check", "defines", "is_used", "labels", "parse", "resolve", "split",
    "text_of", "value_of", "values",
]  # fmt: skip

# Keys that rows and seeds set; no option can change them.
ROW_KEYS = ("student", "method", "seed", "teacher.model")
# Sections and keys in which rows may differ: the loss, the optimization, and the images that a student is
# trained on. Other keys decide what an error means, or are those of the teacher, which all rows share.
_SECTIONS = ("optimizer", "transfer", "init")  # and those of terms
OF_ROWS = (
    "dtype", "data.train_examples", "data.epoch_examples", "data.pad", "data.pad_mode", "data.mirror",
    "data.color_jitter",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Change:
    """A change of one key. Its string is what :func:`parse` reads, and table.json keeps.

    Attributes:
      rows: label or method of the rows that are changed; empty for all rows and their teachers.
      key: dotted.
      text: the value as it was given.
      value: the parsed text.
    """

    rows: str
    key: str
    text: str
    value: Any = dataclasses.field(compare=False)  # a list has no hash

    def __str__(self) -> str:
        return f"{self.name}={self.text}"

    @property
    def name(self) -> str:
        """``[ROWS:]KEY``."""
        return f"{self.rows}:{self.key}" if self.rows else self.key


def parse(text: str) -> Change:
    """Parse ``[ROWS:]KEY=VALUE``.

    Raises:
      UserError: as :func:`split` and :func:`value_of`.

    >>> parse("none:optimizer.learning_rate=0.2")
    Change(rows='none', key='optimizer.learning_rate', text='0.2', value=0.2)
    """
    scope, key, value = split(text)
    return Change(scope, key, value, value_of(key, value))


def split(text: str, flag: str = "--set") -> tuple[str, str, str]:
    """Split a text into its rows, key and value, and check the key.

    Args:
      text: ``[ROWS:]KEY=VALUE``; with ``--search`` it may have several values.
      flag: ``--set`` or ``--search``.

    Raises:
      UserError: for an unknown key, one that the rows or another option set, or one that all rows must
        share and that is given for some, or tried.
    """
    name, equals, value = text.partition("=")
    scope, _, key = name.rpartition(":")
    known = default_values()
    if key == "compare":
        raise UserError(
            f"{flag}: a table compares its rows, got {text!r}: choose them with --rows, or --methods"
        )
    if key in ROW_KEYS:
        fixes = {"seed": "use --seeds", "method": "choose rows with --rows, or --methods"}
        fix = fixes.get(key, "choose rows with --rows, or give student= and teacher= to --config")
        raise UserError(f"{flag}: {key} differs from run to run, got {text!r}: {fix}")
    if not equals or key not in known:
        close = nearest(key, [each for each in known if each not in ROW_KEYS])
        fix = (
            f"did you mean {close}=...?" if close else "at-jax train --help-config prints all keys"
        )
        raise UserError(f"{flag} must be KEY=VALUE with a config key, got {text!r}: {fix}")
    if key == "data.allow_changes":
        raise UserError(
            f"{flag}: all runs of a table must have the same images, got {text!r}: leave it out, and "
            "choose another --out for other images"
        )
    if key == "epochs":
        raise UserError(f"{flag}: the schedules must scale with epochs, got {text!r}: use --epochs")
    is_common = key not in OF_ROWS and key.partition(".")[0] not in {*_SECTIONS, *terms.TERMS}
    if is_common and (scope or flag != "--set"):
        raise UserError(
            f"{flag}: {key} must be the same in all rows, got {text!r}: set it in every row, as in "
            f"--set {key}=VALUE"
        )
    return scope, key, value


def value_of(key: str, text: str, flag: str = "--set") -> Any:
    """Parse a value of a key.

    Raises:
      UserError: for a value of the wrong type.
    """
    config, default = default_config(), default_values()[key]
    try:
        parsed = text if isinstance(default, str) else ast.literal_eval(text)
        config.update_from_flattened_dict({key: parsed})
    except (TypeError, ValueError, SyntaxError) as error:
        kind = "tuple" if isinstance(default, list) else type(default).__name__
        example = {"tuple": "(60,120)", "bool": "True", "int": "3"}.get(kind, "0.5")
        raise UserError(
            f"{flag}: {key} expects a value of type {kind}, got {text!r}: for example {key}={example}"
        ) from error
    return flatten(config.to_dict())[key]


def labels(scope: str, rows: Sequence[Row], flag: str = "--set") -> list[str]:
    """Labels of the rows that a scope names.

    Args:
      scope: a label, or a method.
      rows: of the table.
      flag: for messages.

    Raises:
      UserError: if no row has this label or method.
    """
    known = dict.fromkeys(row.label for row in rows)
    if scope in known:
        return [scope]
    wanted = terms.parts(scope, f"{flag}: the rows before ':'")
    found = [row.label for row in rows if terms.parts(row.method) == wanted]
    if not found:
        raise UserError(
            f"{flag} {scope}:... names rows of the table, which are {', '.join(known)}: give one of them, "
            "or choose its rows with --rows"
        )
    return list(dict.fromkeys(found))


def resolve(changes: Iterable[Change], rows: Sequence[Row]) -> tuple[Change, ...]:
    """Replace the rows of changes by their labels: one change for each label.

    Args:
      changes: of labels and methods.
      rows: of the table.

    Raises:
      UserError: as :func:`labels`, and for a key that no method of the rows has.

    >>> [str(change) for change in resolve([parse("kd+at:at.p=4")], [Row("s", "t", "at+kd")])]
    ['at+kd:at.p=4']
    """
    result: list[Change] = []
    for change in changes:
        found = labels(change.rows, rows) if change.rows else [""]
        concerned = [row for row in rows if not change.rows or row.label in found]
        if not any(is_used(change.key, row) for row in concerned):
            where = f"the rows {change.rows}" if change.rows else "this table"
            raise UserError(
                f"--set {change.key}: no method of {where} has this key, got {change.text!r}: leave it out"
            )
        result += [dataclasses.replace(change, rows=label) for label in found]
    return tuple(result)


def text_of(value: Any) -> str:
    """Format a value as an option takes it; 10 and 10.0 have one text.

    >>> text_of(10.0), text_of(0.05), text_of([5, 9])
    ('10', '0.05', '(5,9)')
    """
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(tuple(value)).replace(" ", "") if isinstance(value, list | tuple) else str(value)


def values(changes: Iterable[Change], row: Row | None = None) -> dict[str, Any]:
    """Values that changes give to the keys of a config.

    Args:
      changes: result of :func:`resolve`. Those for some rows override those for all rows, and later ones
        earlier ones.
      row: whose config it is; None for the config that all rows share.

    Returns:
      Dotted keys to values.

    >>> values(map(parse, ["at.beta=10", "none:optimizer.learning_rate=0.2"]))
    {'at.beta': 10.0}
    """
    label, tried = (row.label, row.tried) if row else ("", ())
    return {
        change.key: change.value
        for change in sorted(changes, key=lambda change: bool(change.rows))
        if change.rows in ("", label) and change.key not in tried
    }


def is_used(key: str, row: Row) -> bool:
    """Whether the loss of a row has a key: a key of another term has no effect.

    >>> is_used("kd.alpha", Row("s", "t", "at")), is_used("transfer.decay", Row("s", "t", "none"))
    (False, False)
    """
    section, used = key.partition(".")[0], terms.parts(row.method)
    return section in used if section in terms.TERMS else section != "transfer" or bool(used)


def defines(row: Row, key: str) -> bool:
    """Whether a key distinguishes a row from others of its method: no option can change it."""
    return bool(row.variant) and key in row.changes


def check(chosen: Sequence[Row], changes: Iterable[Change]) -> None:
    """Check changes against the rows that they are for.

    Args:
      chosen: rows that are trained.
      changes: result of :func:`resolve`.

    Raises:
      UserError: if a change sets the key that defines a variant.
    """
    for change in changes:
        for row in chosen:
            if change.rows in ("", row.label) and defines(row, change.key):
                raise UserError(
                    f"--set {change.key}: row {row.name} is defined by "
                    f"{change.key}={row.changes[change.key]}: leave it out, or choose other rows with "
                    "--rows"
                )
