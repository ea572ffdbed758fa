"""Pickles of ``torch.save``, read as data: nothing that they name is imported or called.

A pickle is a program for a stack machine, which may call any function that can be imported. This machine
has the opcodes of numbers, strings, lists, tuples and dicts, and calls the functions of
:mod:`at_jax.models.pretrained.torch_tensors` only. Everything else is refused.
"""

import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from at_jax.errors import one_line, printable
from at_jax.models.pretrained import torch_tensors
from at_jax.models.pretrained.torch_tensors import (
    GLOBALS,
    SAVE_AGAIN,
    BadFile,
    Function,
    Storage,
    StorageType,
)

__all__ = ["File", "Pickled", "loads"]

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
# Opcodes whose argument is the value.
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class File(Protocol):
    """Source of a pickle."""

    def read(self, size: int, /) -> bytes:
        """Read at most ``size`` bytes."""

    def readline(self) -> bytes:
        """Read to the end of the line."""


class Pickled(NamedTuple):
    """The content of a pickle.

    Attributes:
      value: numbers, strings, lists, tuples and dicts, with a ``Tensor`` for each tensor.
      storages: that it names, by their keys.
    """

    value: Any
    storages: dict[str, Storage]


def loads(file: File) -> Pickled:
    """Read one pickle.

    Args:
      file: at the beginning of the pickle; afterwards positioned at its end.

    Raises:
      BadFile: for everything else, and for a damaged pickle.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(file):  # type: ignore[arg-type]
            if opcode.name == "STOP":
                return Pickled(machine.pop(), machine.storages)
            machine.run(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        reason = printable(one_line(error, 100))
        raise BadFile(f"its pickle is damaged or cut off ({reason})") from error
    raise BadFile("its pickle is cut off")


class _Machine:
    """The stack, the memo, and the operations on them."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self, name: str, argument: Any) -> None:
        """Execute one opcode."""
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            values = [self.pop() for _ in range(_TUPLES[name])]
            self._stack.append(tuple(values[::-1]))
        elif name in _OPERATIONS:
            _OPERATIONS[name](self, argument)
        else:
            raise BadFile(f"its pickle uses {name}, which no state dict needs", SAVE_AGAIN)

    def pop(self) -> Any:
        """Remove the topmost value."""
        self._top()
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise ValueError("an operation lacks a value")
        return self._stack[-1]

    def _pop_to_mark(self) -> list[Any]:
        values = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def proto(self, argument: int) -> None:
        """PROTO and FRAME: no effect."""

    def mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def tuple_(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def list_(self, _: Any) -> None:
        self._stack.append(self._pop_to_mark())

    def dict_(self, _: Any) -> None:
        values = self._pop_to_mark()
        self._stack.append({})
        self._add(values)

    def append(self, _: Any) -> None:
        self._extend([self.pop()])

    def appends(self, _: Any) -> None:
        self._extend(self._pop_to_mark())

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(target := self._top(), list):
            raise ValueError(f"{type(target).__name__} instead of a list")
        target.extend(values)

    def setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self._add([key, value])

    def setitems(self, _: Any) -> None:
        self._add(self._pop_to_mark())

    def _add(self, values: list[Any]) -> None:
        if not isinstance(target := self._top(), dict):
            raise ValueError(f"{type(target).__name__} instead of a dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            torch_tensors.put(target, key, value)

    def put(self, index: int) -> None:
        self._memo[index] = self._top()

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._top()

    def get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def global_(self, name: str) -> None:
        if name not in GLOBALS:
            shown = printable(name.replace(" ", ".", 1)[:100])
            raise BadFile(f"its pickle names {shown}, which is not supported", SAVE_AGAIN)
        self._stack.append(GLOBALS[name])

    def stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self.global_(f"{module} {name}")

    def reduce(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Function) or not isinstance(arguments, tuple):
            raise BadFile("its pickle calls something that is not a function", SAVE_AGAIN)
        self._stack.append(function.call(*arguments))

    def build(self, _: Any) -> None:
        state = self.pop()
        if not isinstance(self._top(), torch_tensors.OrderedDict) or not isinstance(state, dict):
            raise BadFile("its pickle sets attributes", SAVE_AGAIN)

    def binpersid(self, _: Any) -> None:
        storage = _storage(self.pop())
        known = self.storages.setdefault(storage.key, storage)
        if (known.dtype, known.length) != (storage.dtype, storage.length):
            raise BadFile(f"storage {printable(storage.key[:40])} is described in two ways")
        self._stack.append(storage)


def _storage(described: Any) -> Storage:
    """Storage of the tuple with which PyTorch describes it."""
    known = isinstance(described, tuple) and len(described) in (5, 6) and described[0] == "storage"
    if not known or not isinstance(described[1], StorageType):
        raise BadFile("a storage of its pickle is not described as in PyTorch")
    _, kind, key, _, count, *rest = described
    first, size = 0, count
    if rest and rest[0] is not None:  # legacy format: a part of a storage
        if not isinstance(rest[0], tuple) or len(rest[0]) != 3:
            raise BadFile("a storage of its pickle is not described as in PyTorch")
        _, first, size = rest[0]
    if not isinstance(key, str) or not all(map(torch_tensors.is_size, (count, first, size))):
        raise BadFile("a storage of its pickle has a size that is not a whole number of at least 0")
    if first + size > count:
        raise BadFile(f"elements {first} to {first + size} are not within a storage of {count:,}")
    return Storage(key, kind.dtype, count, first, size)


_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.proto, "FRAME": _Machine.proto, "MARK": _Machine.mark, "TUPLE": _Machine.tuple_,
    "LIST": _Machine.list_, "DICT": _Machine.dict_, "APPEND": _Machine.append,
    "APPENDS": _Machine.appends, "SETITEM": _Machine.setitem, "SETITEMS": _Machine.setitems,
    "PUT": _Machine.put, "BINPUT": _Machine.put, "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize, "GET": _Machine.get, "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get, "GLOBAL": _Machine.global_, "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce, "BUILD": _Machine.build, "BINPERSID": _Machine.binpersid,
}  # fmt: skip
