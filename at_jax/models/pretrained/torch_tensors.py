"""Tensors of a file of ``torch.save``, and the names that its pickle may use."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

__all__ = [
    "GLOBALS", "SAVE_AGAIN", "BadFile", "Function", "OrderedDict", "Storage", "StorageType", "Tensor",
    "is_size", "put",
]  # fmt: skip

SAVE_AGAIN = "save the state dict alone, torch.save(model.state_dict(), FILE), or use safetensors"
_MOST_AXES = 8
_DTYPES: dict[str, Any] = {
    "BFloat16": jnp.bfloat16, "Bool": np.bool_, "Byte": np.uint8, "Char": np.int8, "Double": np.float64,
    "Float": np.float32, "Half": np.float16, "Int": np.int32, "Long": np.int64, "Short": np.int16,
}  # fmt: skip


class BadFile(Exception):
    """A file that cannot be read.

    Attributes:
      reason: in one line, without the name of the file.
      fix: what to do.
    """

    def __init__(self, reason: str, fix: str = "download it again, or save the state dict again"):
        super().__init__(reason)
        self.reason, self.fix = reason, fix


class Storage(NamedTuple):
    """A one-dimensional array of the file, or a part of one.

    Attributes:
      key: name of the array in the file.
      dtype: of its elements, little-endian.
      length: number of elements of the array.
      first: index of the first element of the part.
      size: number of elements of the part.
    """

    key: str
    dtype: np.dtype
    length: int
    first: int
    size: int

    @property
    def bytes(self) -> int:
        """Size of the whole array."""
        return self.length * self.dtype.itemsize


class Tensor(NamedTuple):
    """A strided view of a storage, within its bounds; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, content: bytes) -> np.ndarray:
        """View the bytes of the whole storage as the tensor."""
        dtype, length, first = self.storage.dtype, self.storage.length, self.storage.first
        flat = np.frombuffer(content, dtype, length)[first + self.offset :]
        strides = [stride * dtype.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(flat, self.shape, strides, writeable=False)


class Function(NamedTuple):
    """A function that a pickle may call, as it is implemented here."""

    call: Callable[..., Any]


class StorageType(NamedTuple):
    """A type of storages."""

    dtype: np.dtype


class OrderedDict(dict):
    """The content of an OrderedDict. Its attributes (``_metadata`` of a state dict) are dropped."""


def put(target: dict[Any, Any], key: Any, value: Any) -> None:
    """Add an item to a dict of the pickle; its keys are strings and integers of 64 bits."""
    # Hashing nested tuples, and printing long integers, can take very long.
    if not isinstance(key, str) and not (type(key) is int and abs(key) < 2**64):
        raise BadFile(f"its pickle has a key of type {type(key).__name__}", SAVE_AGAIN)
    target[key] = value


def is_size(value: Any) -> bool:
    """Whether a value can be a size, a stride or an offset, in elements."""
    return type(value) is int and 0 <= value < 2**48


def _rebuild_tensor(*arguments: Any) -> Tensor:
    if len(arguments) not in (6, 7) or not isinstance(arguments[0], Storage):
        raise BadFile("a tensor of its pickle has different arguments than PyTorch's")
    storage, offset, shape, strides = arguments[:4]
    are_sizes = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) <= _MOST_AXES
    if not are_sizes or not all(map(is_size, (offset, *shape, *strides))):
        raise BadFile("a size, stride or offset of a tensor is not a whole number of at least 0")
    if len(shape) != len(strides):
        raise BadFile(f"a tensor has {len(shape)} sizes and {len(strides)} strides")
    elements = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    # With a stride of 0 a small storage could claim to hold any number of elements.
    if (elements and last >= storage.size) or max(elements, offset) > storage.size:
        raise BadFile(
            f"a tensor of size {shape}, strides {strides} and offset {offset} is not within its storage of "
            f"{storage.size:,} elements"
        )
    return Tensor(storage, offset, shape, strides)


def _rebuild_parameter(*arguments: Any) -> Tensor:
    if len(arguments) != 3 or not isinstance(arguments[0], Tensor):
        raise BadFile("a parameter of its pickle has different arguments than PyTorch's")
    return arguments[0]


def _ordered_dict(*arguments: Any) -> OrderedDict:
    result = OrderedDict()
    pairs = arguments[0] if len(arguments) == 1 else list(arguments)  # Python 2 passes pairs
    if not isinstance(pairs, list):
        raise BadFile("an OrderedDict of its pickle has different arguments than Python's")
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise BadFile("an OrderedDict of its pickle has different arguments than Python's")
        put(result, *pair)
    return result


# The names that a pickle may use, as "module name". They are compared, never imported.
GLOBALS: dict[str, Function | StorageType] = {
    "collections OrderedDict": Function(_ordered_dict),
    "torch._utils _rebuild_tensor_v2": Function(_rebuild_tensor),
    "torch._utils _rebuild_parameter": Function(_rebuild_parameter),
    **{f"torch {n}Storage": StorageType(np.dtype(dtype)) for n, dtype in _DTYPES.items()},
}
