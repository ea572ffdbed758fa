"""Comparison of the components that are passed with those that the run in a workdir was started with."""

import pathlib
from collections.abc import Mapping
from typing import Any

from at_jax.errors import UserError, listed

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
        if name != "dataset" and _comparable(value) != _comparable(after[name]):
            raise UserError(
                f"the run in {workdir} was started with another {name}: {_short(value)} there, "
                f"{_short(after[name])} now: pass the same one, or choose another --workdir"
            )


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "(" + ", ".join(_short(each) for each in value) + ")"
    if not isinstance(value, dict):
        return str(value)
    return value["class"] if "class" in value else value.get("name", str(value))


def _comparable(value: Any) -> Any:
    """A record without the package of its class or function: a script may be run or imported."""
    if isinstance(value, str):
        return value.partition(":")[2]
    if isinstance(value, list):
        return [_comparable(each) for each in value]
    return {**value, "class": _comparable(value["class"])} if "class" in value else value
