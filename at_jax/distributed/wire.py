"""Values as bytes that one process sends to another: JSON, and the bytes of arrays. Nothing is unpickled.

A message has three parts. The head holds the name of the format, the length of the body and its checksum.
The body begins with the length of a JSON text, then the text, then the arrays, each aligned to 64 bytes. In
the JSON a container is an object with one key: ``{"dict": [[key, value], ...]}``, ``{"list": [...]}``,
``{"tuple": [...]}``, ``{"array": [dtype, shape, offset]}``, or ``{"scalar": ...}`` for a NumPy scalar.
"""

import json
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes  # comes with jax
import numpy as np

__all__ = ["HEAD", "MessageError", "body", "decode", "encode", "head"]

_FORMAT = b"at_jax 1"
_HEAD = struct.Struct(">8sQI")  # format, length of the body, its checksum
HEAD = _HEAD.size
_LENGTH = struct.Struct(">Q")
_ALIGNMENT = 64
_NUMPY = {
    np.dtype(code).name for code in "?" + np.typecodes["AllInteger"] + np.typecodes["AllFloat"]
}


class MessageError(Exception):
    """A message of another process cannot be read."""


def head(content: np.ndarray) -> np.ndarray:
    """Head of a message, (HEAD,) uint8, for a body (N,) uint8."""
    packed = _HEAD.pack(_FORMAT, len(content), zlib.crc32(content))
    return np.frombuffer(packed, np.uint8)


def body(received: np.ndarray) -> tuple[int, int]:
    """Length and checksum of the body that a head announces.

    Raises:
      MessageError: if it is no head.
    """
    name, length, checksum = _HEAD.unpack(received.tobytes())
    if name != _FORMAT:
        raise MessageError(f"got {name!r}, expected {_FORMAT!r}")
    return length, checksum


def encode(value: Any) -> np.ndarray:
    """Body of a message, (N,) uint8.

    Args:
      value: None, bool, int, float or str; NumPy or JAX arrays and NumPy scalars; dicts with keys of str or
        int, lists and tuples of these.

    Raises:
      TypeError: for any other type.
    """
    arrays: list[np.ndarray] = []
    ends = [0]
    text = json.dumps(_described(value, arrays, ends)).encode()
    start = _aligned(_LENGTH.size + len(text))
    content = np.zeros(start + ends[-1], np.uint8)
    prefix = _LENGTH.pack(len(text)) + text
    content[: len(prefix)] = np.frombuffer(prefix, np.uint8)
    for array, offset in zip(arrays, ends, strict=False):
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        content[start + offset : start + offset + len(flat)] = flat
    return content


def decode(content: np.ndarray, checksum: int) -> Any:
    """Value of a body; its arrays share the memory of ``content``.

    Raises:
      MessageError: if the checksum differs, or the body is damaged.
    """
    if zlib.crc32(content) != checksum:
        raise MessageError("its checksum differs")
    try:
        (length,) = _LENGTH.unpack(content[: _LENGTH.size].tobytes())
        text = content[_LENGTH.size : _LENGTH.size + length].tobytes()
        described = json.loads(text)
        return _value(described, content[_aligned(_LENGTH.size + length) :])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, struct.error) as error:
        raise MessageError(f"{type(error).__name__}: {error}") from error


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _described(value: Any, arrays: list[np.ndarray], ends: list[int]) -> Any:
    """JSON of a value. Its arrays are appended to ``arrays``, and the offset of the next to ``ends``."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        wrong = [key for key in value if type(key) not in (str, int)]
        if wrong:
            raise TypeError(
                f"cannot send a dict with the key {wrong[0]!r}: keys must be str or int"
            )
        return {"dict": [[key, _described(x, arrays, ends)] for key, x in value.items()]}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_described(x, arrays, ends) for x in value]}
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__array__"):
        array = np.asarray(value)
        if array.dtype != _dtype(array.dtype.name):
            raise TypeError(
                f"cannot send an array of {array.dtype} to another process: send numbers"
            )
        arrays.append(array)
        shape, offset = list(array.shape), ends[-1]
        ends.append(_aligned(offset + array.nbytes))
        kind = "scalar" if isinstance(value, np.generic) else "array"
        return {kind: [array.dtype.name, shape, offset]}
    raise TypeError(f"cannot send a {type(value).__name__} to another process: send plain values")


def _value(described: Any, data: np.ndarray) -> Any:
    if not isinstance(described, dict):
        return described
    ((kind, content),) = described.items()
    if kind == "dict":
        return {key: _value(x, data) for key, x in content}
    if kind in ("list", "tuple"):
        values = [_value(x, data) for x in content]
        return values if kind == "list" else tuple(values)
    if kind not in ("array", "scalar"):
        raise ValueError(f"unknown kind {kind!r}")
    name, shape, offset = content
    dtype = _dtype(name)
    if dtype is None:
        raise ValueError(f"an array of {name!r}")
    size = math.prod(shape) * dtype.itemsize
    if min((0, offset, *shape)) < 0 or offset + size > len(data):
        raise ValueError(f"an array of shape {shape} is not in the message")
    if kind == "scalar" and shape:
        raise ValueError(f"a scalar of shape {shape}")
    array = data[offset : offset + size].view(dtype).reshape(shape)
    return array if kind == "array" else array[()]


def _dtype(name: str) -> np.dtype | None:
    """Dtype of numbers by name: one of NumPy's, or of ml_dtypes, such as bfloat16; None for any other."""
    if not isinstance(name, str):
        return None
    known = getattr(ml_dtypes, name, None)
    if isinstance(known, type) and issubclass(known, np.generic):
        return np.dtype(known)
    return np.dtype(name) if name in _NUMPY else None
