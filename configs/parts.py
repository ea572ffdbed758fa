"""Parsing of --config=FILE:PARTS, as in :student=wrn_16_1,teacher=wrn_16_2,method=at."""

import difflib

import ml_collections

from at_jax.errors import UserError

_HELP = "write for example --config=configs/cifar10.py:student=wrn_16_1,teacher=wrn_16_2,method=at"


def apply_parts(
    config: ml_collections.ConfigDict, text: str | None, others: dict[str, str] | None = None
) -> ml_collections.ConfigDict:
    """Set the keys named after the colon.

    Args:
      config: modified in place.
      text: ``key=value,key=value``, each optional; None or empty changes nothing.
      others: further names of this file, each with the dotted config key that it sets.

    Returns:
      The config.

    Raises:
      UserError: for a part without ``=``, or an unknown name.
    """
    keys = {"student": "student", "teacher": "teacher.model", "method": "method", **(others or {})}
    for part in filter(None, (text or "").split(",")):
        key, equals, value = part.partition("=")
        if not equals or key not in keys:
            close = difflib.get_close_matches(key, keys, n=1)
            hint = f"; did you mean {close[0]!r}?" if close and equals else ""
            raise UserError(
                f"--config, after the colon: {part!r} is not one of "
                f"{', '.join(f'{k}=...' for k in keys)}{hint}: {_HELP}"
            )
        config.update_from_flattened_dict({keys[key]: value})
    return config
