"""Files in the formats of ``torch.save``, written byte by byte, so that they can also be wrong.

Values are numbers, strings, lists, tuples and dicts, and the classes below. Pickles have protocol 2.
"""

import dataclasses
import io
import struct
import zipfile
from typing import Any

import numpy as np

STORAGES = {
    "float32": "Float",
    "float64": "Double",
    "float16": "Half",
    "int64": "Long",
    "bool": "Bool",
}
LEGACY = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})


@dataclasses.dataclass(frozen=True)
class Raw:
    """Bytes of a pickle."""

    content: bytes


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of the function ``module.name``; the result may get items and attributes."""

    module: str
    name: str
    arguments: tuple = ()
    items: dict | None = None
    attributes: Any = None


@dataclasses.dataclass(frozen=True)
class Persistent:
    """An object that the file describes outside of the pickle."""

    described: Any


def global_(module, name):
    return Raw(f"c{module}\n{name}\n".encode())


def code(value):
    """Opcodes that push a value."""
    match value:
        case Raw(content):
            return content
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            length = value.bit_length() // 8 + 1
            return b"\x8a" + bytes([length]) + value.to_bytes(length, "little", signed=True)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(code, value)) + b"t"
        case list():
            return b"](" + b"".join(map(code, value)) + b"e"
        case dict():
            return b"}" + _items(value)
        case Call():
            made = code(global_(value.module, value.name)) + code(value.arguments) + b"R"
            made += _items(value.items) if value.items is not None else b""
            return made + (code(value.attributes) + b"b" if value.attributes is not None else b"")
        case Persistent():
            return code(value.described) + b"Q"
    raise TypeError(type(value))


def _items(items):
    return b"(" + b"".join(code(key) + code(item) for key, item in items.items()) + b"u"


def pickled(value):
    return b"\x80\x02" + code(value) + b"."


def storage(array, key, *, kind="", length=None, view=()):
    kind = kind or STORAGES[array.dtype.name]
    length = array.size if length is None else length
    return Persistent(("storage", global_("torch", f"{kind}Storage"), key, "cpu", length, *view))


def tensor(array, key, *, offset=0, shape=None, strides=None, **of_storage):
    """A tensor with a storage of its own: the elements of ``array`` in memory."""
    shape = array.shape if shape is None else shape
    default = tuple(int(np.prod(array.shape[axis + 1 :])) for axis in range(array.ndim))
    strides = default if strides is None else strides
    arguments = (storage(array, key, **of_storage), offset, shape, strides, False)
    hooks = Call("collections", "OrderedDict")
    return Call("torch._utils", "_rebuild_tensor_v2", (*arguments, hooks))


def state_dict(arrays):
    """Tensors of named arrays; the keys of the storages are their numbers."""
    items = {name: tensor(array, str(n)) for n, (name, array) in enumerate(arrays.items())}
    metadata = {"_metadata": Call("collections", "OrderedDict", (), {"": {"version": 1}})}
    return Call("collections", "OrderedDict", (), items, metadata)


def contents(arrays):
    return {str(n): array.tobytes() for n, array in enumerate(arrays.values())}


def zip_file(value, storages, *, extra=None, compression=zipfile.ZIP_STORED):
    """Bytes of a file in the zip format, from the value (or its pickle) and key to bytes."""
    content = value if isinstance(value, bytes) else pickled(value)
    members = {"data.pkl": content, "byteorder": b"little", "version": b"3\n"}
    members |= {f"data/{key}": each for key, each in storages.items()} | (extra or {})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, each in members.items():
            archive.writestr(f"archive/{name}", each)
    return file.getvalue()


def legacy_file(value, storages, *, header=LEGACY, lengths=None, size=4):
    """Bytes of a file in the legacy format; ``lengths`` are those before the storages."""
    content = value if isinstance(value, bytes) else pickled(value)
    head = b"".join(map(pickled, header)) + content + pickled(list(storages))
    lengths = lengths or {key: len(each) // size for key, each in storages.items()}
    return head + b"".join(struct.pack("<q", lengths[k]) + each for k, each in storages.items())
