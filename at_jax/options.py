"""Dataclass fields that carry their meaning and their validation rule.

A settings section is a frozen dataclass whose fields are made by :func:`option`. The defaults, the
command-line help and the checks of a config are all generated from these fields.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from at_jax.errors import UserError

__all__ = [
    "Rule", "above", "at_least", "at_least_or", "between", "check", "increasing", "items", "one_of",
    "option",
]  # fmt: skip


class Rule(NamedTuple):
    """A validation rule: a predicate and its description, as in "expected <text>"."""

    accepts: Callable[[Any], bool]
    text: str


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def at_least(bound: float) -> Rule:
    """A finite number of at least `bound`."""
    return Rule(lambda value: _is_number(value) and value >= bound, f"at least {bound}")


def above(bound: float) -> Rule:
    """A finite number above `bound`."""
    return Rule(lambda value: _is_number(value) and value > bound, f"above {bound}")


def between(low: float, high: float, text: str = "") -> Rule:
    """A finite number from `low` to `high`, both included."""
    return Rule(
        lambda value: _is_number(value) and low <= value <= high, text or f"from {low} to {high}"
    )


def one_of(*known: str) -> Rule:
    """One of some strings."""
    return Rule(lambda value: value in known, f"one of {', '.join(known)}")


def items(rule: Rule, what: str) -> Rule:
    """A tuple whose items all follow a rule."""
    return Rule(lambda values: all(rule.accepts(value) for value in values), what)


def at_least_or(bound: float, other: float) -> Rule:
    """A finite number of at least `bound`, or a special value."""
    return Rule(
        lambda value: value == other or (_is_number(value) and value >= bound),
        f"at least {bound}, or {other}",
    )


# By the annotation of a field. A field of another type has only its own rule.
_OF_TYPE: dict[Any, Rule] = {
    bool: Rule(lambda value: isinstance(value, bool), "True or False"),
    int: Rule(
        lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"
    ),
    float: Rule(_is_number, "a finite number"),
    str: Rule(lambda value: isinstance(value, str), "a string"),
    tuple: Rule(lambda value: isinstance(value, tuple | list), "a tuple"),
}

increasing = Rule(
    lambda epochs: (
        all(isinstance(epoch, int) and epoch >= 1 for epoch in epochs)
        and all(a < b for a, b in itertools.pairwise(epochs))
    ),
    "increasing whole epochs, from 1 on",
)


def option(default: Any, meaning: str, rule: Rule | None = None) -> Any:
    """A dataclass field with a default, a meaning for ``--help-config``, and a rule.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Section:
    ...     rate: float = option(0.1, "Learning rate.", at_least(0))
    >>> Section().rate
    0.1
    >>> check(Section(-1.0), "sgd")
    Traceback (most recent call last):
    at_jax.errors.UserError: sgd.rate must be at least 0, got -1.0: set it with --config.sgd.rate=...
    """
    return dataclasses.field(default=default, metadata={"meaning": meaning, "rule": rule})


def check(section: Any, name: str = "") -> None:
    """Check every field of a settings section against its type and its rule.

    Args:
      section: dataclass whose fields are made by :func:`option`.
      name: of the section, for the message; empty for the top level.

    Raises:
      UserError: naming the key, what is expected, and the value.
    """
    for field in dataclasses.fields(section):
        dotted = f"{name}.{field.name}" if name else field.name
        value = getattr(section, field.name)
        for rule in (field.metadata.get("rule"), _OF_TYPE.get(field.type)):
            if rule is not None and not _accepts(rule, value):
                raise UserError(
                    f"{dotted} must be {rule.text}, got {value!r}: set it with --config.{dotted}=..."
                )


def _accepts(rule: Rule, value: Any) -> bool:
    try:
        return rule.accepts(value)
    except TypeError:  # a value of the wrong type, such as a number for a tuple
        return False
