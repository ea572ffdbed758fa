"""Comparison of the components that are passed with those that the run in a workdir was started with."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from at_jax.errors import UserError, listed
from at_jax.terms import TERMS

__all__ = ["check"]


def check(workdir: pathlib.Path, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise unless a run is resumed with the components that it was started with.

    Callbacks may change: they do not affect the training. The data are compared by
    :mod:`at_jax.training.files.identity`.

    Args:
      workdir: of the run, for messages.
      stored: record in its config.json.
      now: record of this call.

    Raises:
      UserError: naming what is missing, new or different.
    """
    before = {name: value for name, value in stored.items() if name != "callbacks"}
    after = {name: value for name, value in now.items() if name != "callbacks"}
    if missing := [name for name in before if name not in after]:
        raise UserError(
            f"the run in {workdir} was started with {listed(f'{n}={_short(before[n])}' for n in missing)}: "
            f"pass {listed(f'{n}=' for n in missing)} to train_and_evaluate again, or choose another "
            "--workdir"
        )
    if added := [name for name in after if name not in before]:
        raise UserError(
            f"the run in {workdir} was started without {listed(f'{n}=' for n in added)}: leave it out, or "
            "choose another --workdir"
        )
    for name, value in before.items():
        now_given = after[name]
        if name == "terms":
            value = _with_defaults(value, now_given)
        if name != "dataset" and _comparable(value) != _comparable(now_given):
            raise UserError(
                f"the run in {workdir} was started with another {name}=, {_short(value, now_given)}, got "
                f"{_short(now_given, value)}: pass the same, or choose another --workdir"
            )


def _with_defaults(before: Sequence[Any], now: Sequence[Any]) -> list[Any]:
    """Stored terms with the default weights that older versions did not store: they are those of now.

    A weight of None is that of the config for a term in ``TERMS``, and is compared.
    """
    weights = {each["name"]: each.get("weight") for each in now if each["name"] not in TERMS}
    known = {name: weight for name, weight in weights.items() if weight is not None}
    return [
        {**each, "weight": known[each["name"]]}
        if each.get("weight") is None and each["name"] in known
        else each
        for each in before
    ]


def _short(value: Any, other: Any = None) -> str:
    """The class or the name of a component, with the fields in which another one of its class differs."""
    if isinstance(value, list):
        others = (
            other if isinstance(other, list) and len(other) == len(value) else [None] * len(value)
        )
        return "(" + ", ".join(map(_short, value, others)) + ")"
    if not isinstance(value, dict):
        return str(value)
    if "class" not in value:
        return value.get("name", str(value))
    differing = {}
    if isinstance(other, dict) and _name(value["class"]) == _name(other.get("class", "")):
        mine, theirs = _shown(value), _shown(other)
        differing = {k: v for k, v in mine.items() if theirs.get(k) != v}
    shown = ", ".join(f"{k}={v}" for k, v in differing.items())
    return value["class"] + (f"({shown})" if shown else "")


def _shown(value: Mapping[str, Any]) -> dict[str, str]:
    fields = {name: repr(each) for name, each in _fields(value).items()}
    return fields | dict.fromkeys(value.get("unrecorded", ()), "...")


def _fields(value: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a component, and the weight of a term."""
    weight = {"weight": value["weight"]} if "weight" in value else {}
    return {**value.get("fields", {}), **weight}


def _comparable(value: Any) -> Any:
    """A record without the package of its class or function: a script may be run or imported."""
    if isinstance(value, str):
        return _name(value)
    if isinstance(value, list):
        return [_comparable(each) for each in value]
    return {**value, "class": _name(value["class"])} if "class" in value else value


def _name(qualified: str) -> str:
    return qualified.partition(":")[2]
