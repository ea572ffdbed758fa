"""Small JSON files that are checked when they are read. Imports no jax.

An object is written with the CRC-32 of its content under ``checksum``. A file without this key, which an
older version wrote, is read as it is; so is a file that a program changed and wrote in another format.
"""

import json
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

__all__ = ["CHECKSUM", "Damaged", "checksum", "dumps", "loads", "read", "sealed"]

CHECKSUM = "checksum"


class Damaged(Exception):
    """A file does not hold what was written to it; the message is the reason, without the file's name."""


def checksum(value: Any) -> int:
    """CRC-32 of a JSON value; keys in any order, tuples and lists alike.

    >>> checksum({"a": (1, 2), "b": 0.5}) == checksum({"b": 0.5, "a": [1, 2]})
    True
    """
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Add the checksum, which replaces an old one."""
    content = {key: item for key, item in value.items() if key != CHECKSUM}
    # As it will be read: JSON turns keys into strings and tuples into lists.
    return {**content, CHECKSUM: checksum(json.loads(json.dumps(content)))}


def dumps(value: Mapping[str, Any]) -> str:
    """Format an object, with its checksum, for people to read.

    >>> print(dumps({"step": 3}), end="")
    {
      "checksum": 145879999,
      "step": 3
    }
    """
    return _text(sealed(value))


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def read(path: pathlib.Path, *, editable: bool = True) -> dict[str, Any]:
    """Read an object; its checksum is compared and removed.

    Args:
      path: of the file.
      editable: accept a file without a checksum, and a wrong one in a file that is not in the format of
        :func:`dumps`.

    Raises:
      FileNotFoundError: if there is no such file.
      Damaged: with the reason.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(str(path)) from error
    except OSError as error:
        raise Damaged("it is a directory" if path.is_dir() else str(error.strerror)) from error
    return loads(content, editable=editable)


def loads(content: bytes, *, editable: bool = True) -> dict[str, Any]:
    """Parse an object, as :func:`read`.

    Raises:
      Damaged: with the reason.

    >>> loads(dumps({"step": 3}).replace("3", "7").encode())
    Traceback (most recent call last):
    at_jax.training.files.json_files.Damaged: its checksum differs
    """
    if not content.strip():
        raise Damaged("it is empty")
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise Damaged(" ".join(str(error).split())[:100]) from error
    if not isinstance(value, dict):
        raise Damaged(f"expected an object, got {type(value).__name__}")
    rest = {key: item for key, item in value.items() if key != CHECKSUM}
    if CHECKSUM not in value and not editable:
        raise Damaged("it lacks its checksum")
    differs = CHECKSUM in value and checksum(rest) != value[CHECKSUM]
    if differs and not (editable and content.decode() != _text(value)):
        raise Damaged("its checksum differs")
    return rest
