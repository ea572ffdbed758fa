"""Checks of the code of terms, which may be the user's."""

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from at_jax.errors import UserError, listed, traceable
from at_jax.terms.base import Term

__all__ = ["check_term", "explained", "without_points"]

_REQUIRE_POINTS = "set compares_taps = 'activation' in the class, which then requires points"
_METHODS = {
    "values": ("batch", "params"),
    "measures": ("batch", "params"),
    "module": ("points", "taps_s", "taps_t"),
    "forward_inputs": ("teacher",),
}


def check_term(term: Any) -> None:
    """Raise unless an object is a term whose options and methods are those of :class:`Term`.

    Raises:
      UserError: naming the term.
    """
    if not isinstance(term, Term):
        name = getattr(term, "__name__", "AttentionTransfer")
        raise UserError(
            f"terms must be instances of at_jax.terms.Term, got {term!r}: pass them as in [{name}()]"
        )
    _check_is_dataclass(type(term))
    for method, parameters in _METHODS.items():
        try:
            inspect.signature(getattr(term, method)).bind(*parameters)
        except TypeError as error:
            raise UserError(
                f"term {term.name}: {method} must be callable as {method}({', '.join(parameters)}), got "
                f"one that is not ({error}): change its signature"
            ) from error


def _check_is_dataclass(kind: type[Term]) -> None:
    """Raise if options are not fields, which equality and the record of a run compare."""
    for each in kind.__mro__[: kind.__mro__.index(Term)]:
        own = vars(each)
        if "__dataclass_fields__" in own:
            continue
        has_options = any(isinstance(value, dataclasses.Field) for value in own.values())
        if "__init__" in own or has_options:
            fix = "declare its options as fields, under @dataclasses.dataclass(frozen=True)"
            got = (
                "a class with its own __init__"
                if "__init__" in own
                else "a class without @dataclass"
            )
            raise UserError(f"term {kind.__name__} must be a frozen dataclass, got {got}: {fix}")


@contextlib.contextmanager
def explained(
    term: Term,
    method: str,
    points: Sequence[tuple[str, str]] | None,
    taps_s: Mapping[str, Any] | None,
    taps_t: Mapping[str, Any] | None,
) -> Iterator[None]:
    """Turn errors of tracing a method of a term into a UserError, and add a note to errors of lookups.

    A KeyError or IndexError may be of the user's own data, so it stays what it is. Its note has the taps,
    and says if there are no points.

    Args:
      term: whose method is called.
      method: its name.
      points: transfer points of the objective; None if the method does not receive them.
      taps_s: of the student; None if the method does not receive them.
      taps_t: of the teacher; None without one.
    """
    name = f"term {term.name}" if method == "values" else f"{method}() of term {term.name}"
    both = {"student": taps_s, "teacher": taps_t}
    taps = {whose: found for whose, found in both.items() if found is not None}
    try:
        with traceable(name):
            yield
    except (KeyError, IndexError) as error:
        notes = [
            f"in {name}",
            *(f"the {whose} taps {listed(found)}" for whose, found in taps.items()),
        ]
        if points is not None and not points:
            notes.append(f"there are no transfer points: {_REQUIRE_POINTS}")
        error.add_note("; ".join(notes))
        raise


def without_points(term: Term, got: str) -> UserError:
    """Make the error for a term that probably sums over the points of an objective without points."""
    return UserError(
        f"term {term.name} can read batch.points only if there are points, got {got} without them: "
        f"{_REQUIRE_POINTS}"
    )
