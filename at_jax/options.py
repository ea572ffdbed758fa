"""Dataclass fields with a description and a validation rule.

A settings section is a frozen dataclass whose fields are defined with :func:`option`. The defaults, the
command-line help and the checks of a config are all generated from these fields.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from at_jax.errors import UserError

__all__ = [
    "BETAS", "EPOCHS", "EPOCH_LIST", "TEMPERATURES",
    "Rule", "above", "at_least", "between", "check", "check_value", "example", "items", "one_of", "option",
    "or_special", "plain",
]  # fmt: skip


_LONGEST = 200
_Section = TypeVar("_Section")


class Rule(NamedTuple):
    """A validation rule: a predicate and its description, as in "must be <text>".

    Attributes:
      accepts: value to whether it is valid. TypeError, ValueError and OverflowError mean that it is not.
      text: description of the valid values, such as "at least 1".
    """

    accepts: Callable[[Any], bool]
    text: str


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def at_least(bound: float) -> Rule:
    """A finite number of at least ``bound``."""
    return Rule(lambda value: _is_number(value) and value >= bound, f"at least {bound}")


def above(bound: float) -> Rule:
    """A finite number above ``bound``."""
    return Rule(lambda value: _is_number(value) and value > bound, f"above {bound}")


def between(low: float, high: float, text: str = "") -> Rule:
    """A finite number from ``low`` to ``high``, both included."""
    return Rule(
        lambda value: _is_number(value) and low <= value <= high,
        text or f"from {low} to {_short(high)}",
    )


def _short(number: float) -> str:
    """A number without its zeros: 1e+08 for 100000000.0."""
    return f"{number:g}" if isinstance(number, float) else str(number)


def one_of(*known: str) -> Rule:
    """One of some strings."""
    return Rule(lambda value: value in known, f"one of {', '.join(known)}")


def items(rule: Rule, what: str) -> Rule:
    """A tuple whose items all follow a rule."""
    return Rule(lambda values: all(rule.accepts(value) for value in values), what)


def or_special(special: float, rule: Rule) -> Rule:
    """A special value, or one that follows a rule."""
    return Rule(
        lambda value: (_is_number(value) and value == special) or rule.accepts(value),
        f"{special}, or {rule.text}",
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    """Whether a value is a string that a file or a path can hold: no zero byte, no half of a pair."""
    return isinstance(value, str) and not any(
        char == "\0" or "\ud800" <= char <= "\udfff" for char in value
    )


# Bounds within which float32 arithmetic is meaningful.
EPOCHS = 100_000
EPOCH_LIST = Rule(
    lambda values: (
        all(_is_whole(value) and 1 <= value <= EPOCHS for value in values)
        and all(a < b for a, b in itertools.pairwise(values))
    ),
    f"increasing whole epochs from 1 to {EPOCHS}",
)
# The relative rounding error of T^2 KL(t || s) grows in proportion to T.
TEMPERATURES = between(0.01, 100)
BETAS = between(0, 1e8)

# By the annotation of a field. A field of another type has only its own rule.
_OF_TYPE: dict[Any, Rule] = {
    bool: Rule(lambda value: isinstance(value, bool), "True or False"),
    int: Rule(_is_whole, "a whole number"),
    float: Rule(_is_number, "a finite number"),
    str: Rule(_is_text, "a string"),
    tuple: Rule(lambda value: isinstance(value, tuple | list), "a tuple"),
}
# With `from __future__ import annotations` they are strings.
_OF_TYPE |= {kind.__name__: rule for kind, rule in _OF_TYPE.items()}


def option(default: Any, meaning: str, rule: Rule | None = None) -> Any:
    """Define a dataclass field with a default, a description for ``--help-config``, and a rule.

    Args:
      default: its value in a section that does not set it.
      meaning: one sentence.
      rule: in addition to that of the type in the annotation; None for no other rule.

    Returns:
      The field, for the body of a dataclass. :func:`check` checks its value.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Section:
    ...     rate: float = option(0.1, "Learning rate.", at_least(0))
    >>> Section().rate
    0.1
    >>> check(Section(-1.0), "sgd")
    Traceback (most recent call last):
    at_jax.errors.UserError: sgd.rate must be at least 0, got -1.0: for example rate=0.1
    """
    return dataclasses.field(default=default, metadata={"meaning": meaning, "rule": rule})


def plain(section: _Section) -> _Section:
    """Replace NumPy scalars in the fields of a frozen dataclass, which JSON does not know, by Python's.

    Args:
      section: changed in place, in ``__post_init__``.

    Returns:
      The same object.
    """
    for field in dataclasses.fields(section):  # type: ignore[arg-type]
        value = getattr(section, field.name)
        if isinstance(value, np.generic):
            object.__setattr__(section, field.name, value.item())
    return section


def check(section: Any, name: str = "") -> None:
    """Check every field of an object against its type and its rule.

    Args:
      section: dataclass whose fields are made by :func:`option`.
      name: of the section, for the message; empty for the top level.

    Raises:
      UserError: naming the field, what is expected, the value, and the default as a valid value.
    """
    for field in dataclasses.fields(section):
        dotted = f"{name}.{field.name}" if name else field.name
        has_default = field.default is not dataclasses.MISSING
        fix = f"for example {field.name}={field.default!r}" if has_default else "pass another value"
        _check(dotted, field, getattr(section, field.name), fix)


def check_value(key: str, field: dataclasses.Field, value: Any) -> None:
    """Check the value of one key of a config against its type and its rule.

    Args:
      key: dotted, as on the command line.
      field: made by :func:`option`, or a field of a term without a rule.
      value: to check.

    Raises:
      UserError: naming the key, what is expected, the value, and the flag that sets the default.
    """
    _check(key, field, value, f"set it with {example(key, field)}")


def _check(name: str, field: dataclasses.Field, value: Any, fix: str) -> None:
    for rule in (field.metadata.get("rule"), _OF_TYPE.get(field.type)):
        if rule is not None and not _accepts(rule, value):
            raise UserError(f"{name} must be {rule.text}, got {_shown(value)}: {fix}")


def example(key: str, field: dataclasses.Field) -> str:
    """The argument of the command line that sets a key to its default."""
    if field.default is dataclasses.MISSING:
        return f"--config.{key}=..."
    text = str(field.default)
    return f"--config.{key}={text if text and ' ' not in text and '(' not in text else repr(text)}"


def _shown(value: Any) -> str:
    """The value in one line of bounded length."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _accepts(rule: Rule, value: Any) -> bool:
    try:
        return rule.accepts(value)
    except (TypeError, ValueError, OverflowError):  # of the wrong type, or beyond every float
        return False
