"""Comparison of a config with that of the run in a workdir: which keys may change when it is resumed."""

import pathlib
from collections.abc import Mapping
from typing import Any

from at_jax.errors import UserError, listed
from at_jax.terms import TERMS, parts
from at_jax.training.config import flatten
from at_jax.training.files import component_changes
from at_jax.training.files.config_record import ARGUMENTS, IDENTITY, settings_in

__all__ = ["check"]

# Keys that hold a location. It may change if the identity of what is stored there can be compared.
_PLACES = ("data.data_dir", "teacher.checkpoint", "teacher.weights", "init.weights")


def check(
    workdir: pathlib.Path,
    stored: Mapping[str, Any],
    config: Mapping[str, Any],
    arguments: Mapping[str, Any],
    keys: Mapping[str, str],
    *,
    has_teacher: bool,
    epochs_begun: int,
) -> None:
    """Check that a run may be resumed with a config; see :func:`at_jax.training.files.run_files.check`.

    Args:
      workdir: of the run, for messages.
      stored: content of its config.json.
      config: all keys and values.
      arguments: record of the components that were passed.
      keys: for messages, keys that the user sets instead of a key of ``config``.
      has_teacher: a teacher was trained in the workdir.
      epochs_begun: by the run so far.

    Raises:
      UserError: naming the keys that differ.
    """
    before, now = flatten(settings_in(stored)), flatten(config)
    places = _PLACES if stored.get(IDENTITY) else ()
    # Terms that are passed may read the sections of others.
    unused = set() if arguments.get("terms") else TERMS.keys() - set(parts(config["method"]))
    # A teacher that is trained in the workdir for as many epochs as the student.
    is_as_long = has_teacher and not now["teacher.epochs"]
    differing = [
        f"{keys.get(key, key)}: {before[key]!r} there, {now[key]!r} now"
        for key in sorted(now)
        if before[key] != now[key]
        # Without a place a new teacher would be trained.
        and not (key in places and (now[key] or not before[key]))
        and key.split(".")[0] not in unused
        and not _may_differ(key, before, now, is_as_long, epochs_begun)
    ]
    if differing:
        fix = (
            "use the same values to resume it, or another --workdir, where "
            f"--config.init.weights={workdir} starts from its weights"
        )
        if is_as_long and _may_differ("epochs", before, now, False, epochs_begun):
            own = "teacher" if before["teacher.epochs"] else "optimizer"
            drops = tuple(before[f"{own}.drop_epochs"])
            fix = (
                "its teacher was trained for as many epochs, and "
                f"--config.teacher.epochs={before['teacher.epochs'] or before['epochs']} "
                f'--config.teacher.drop_epochs="{drops}" keep that teacher; otherwise {fix}'
            )
        raise UserError(
            f"workdir {workdir} holds a run with another config ({listed(differing)}): {fix}"
        )
    if (recorded := stored.get(ARGUMENTS)) is not None:  # version 0.1 did not record them
        component_changes.check(workdir, recorded, arguments)


def _may_differ(
    key: str, before: Mapping[str, Any], now: Mapping[str, Any], is_as_long: bool, epochs_begun: int
) -> bool:
    if key.startswith("runtime.") or key in (
        "compare",
        "data.allow_changes",
        # Images that it leaves out are a change of the data, which is compared on its own.
        "data.skip_corrupt",
        "data.workers",
        "data.memory_limit_mb",
    ):
        return True
    if key in ("teacher.epochs", "teacher.drop_epochs") and not before["teacher.epochs"]:
        # The teacher's own run compares its drops.
        return now["teacher.epochs"] == before["epochs"]
    depends_on_length = (
        now["transfer.decay"] not in ("constant", "steps")
        or now["optimizer.schedule"] not in ("constant", "steps")
        or is_as_long
    )
    return key == "epochs" and not depends_on_length and now[key] >= epochs_begun
