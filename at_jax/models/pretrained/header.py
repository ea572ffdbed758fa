"""Description of a network in the header of a safetensors file: what its weights do not contain."""

import json
import os
from collections.abc import Mapping
from typing import Any

from at_jax.errors import UserError, printable
from at_jax.models.pretrained import files

__all__ = ["description", "metadata"]

# Entry of the header. Its value is JSON.
_ENTRY = "at_jax"
_KEYS = ("name", "class_names", "image_shape", "mean", "std")
# Keys with their ranges.
_OPTIONAL = {"resize": (0, 8192), "bit_depth": (8, 16)}


def metadata(described: Mapping[str, Any]) -> dict[str, str]:
    """Format the description of a trained network, for :func:`at_jax.models.pretrained.dumps`.

    Args:
      described: ``name`` for :func:`at_jax.models.build`, ``class_names`` by label, ``image_shape``
        (H, W, C), ``mean`` and ``std`` per channel of pixels in 0..255, and optionally ``resize`` (pixels
        of the shorter side before the center is cropped) and ``bit_depth`` (of 16-bit image files); other
        keys are ignored.
    """
    kept = {key: described[key] for key in _KEYS}
    return {_ENTRY: json.dumps(kept | {k: described[k] for k in _OPTIONAL if k in described})}


def description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the description of the network in a weights file.

    Args:
      path: of the file.

    Returns:
      The keys of :func:`metadata` that it has; empty for a file of another program.

    Raises:
      UserError: if the description is damaged.
    """
    text = files.header(path).get(_ENTRY)
    if text is None:
        return {}
    try:
        found = json.loads(text)
        result = {
            "name": _checked(found["name"], isinstance(found["name"], str)),
            "class_names": [_checked(x, isinstance(x, str)) for x in _list(found, "class_names")],
            "image_shape": [_number(x, 1, 4096, int) for x in _list(found, "image_shape")],
            "mean": [_number(x, 0, 255) for x in _list(found, "mean")],
            "std": [_number(x, 0.1, 255) for x in _list(found, "std")],
        }
        result |= {k: _number(found[k], *_OPTIONAL[k], int) for k in _OPTIONAL if k in found}
        channels = {len(result["mean"]), len(result["std"]), *result["image_shape"][2:]}
        _checked(found, len(channels) == 1 and len(result["image_shape"]) == 3)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(
            f"{printable(str(path))}: its description, metadata {_ENTRY!r}, is damaged "
            f"({type(error).__name__}: {error}): export the network again"
        ) from error
    return result


def _checked(value: Any, is_valid: bool) -> Any:
    if not is_valid:
        raise ValueError(f"got {value!r:.100}")
    return value


def _list(found: Mapping[str, Any], key: str) -> list[Any]:
    return _checked(found[key], isinstance(found[key], list))


def _number(value: Any, least: float, most: float, kind: Any = (int, float)) -> Any:
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    return _checked(value, is_number and least <= value <= most)  # NaN is not
