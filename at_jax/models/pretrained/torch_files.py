"""Files of ``torch.save``: the zip format, and the legacy format of PyTorch before 1.6.

Both are a pickle, read by :mod:`at_jax.models.pretrained.torch_pickle`, and the bytes of the storages that
it names. Sizes are compared with the size of the file before anything is allocated, and only those storages
are read that the state dict needs.
"""

import io
import math
import os
import pathlib
import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from at_jax.errors import listed, one_line, printable
from at_jax.models.pretrained import torch_pickle
from at_jax.models.pretrained.torch_tensors import SAVE_AGAIN, BadFile, Storage, Tensor

__all__ = ["read"]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number as a pickle
_MOST_BYTES = 16 * 2**20  # of a pickle; that of a ResNet-101 has 0.2 MB
_ZIP_ERRORS = (
    zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error,
)  # fmt: skip
# Names under which training programs save a state dict, the most specific first.
_NAMES = ("state_dict", "model_state_dict", "model", "net", "network", "model_state")


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Read a state dict.

    Args:
      path: of the file. Its object is a state dict, or a dict that has one among its values.

    Returns:
      Name to array.

    Raises:
      BadFile: for a damaged file, and for one that holds anything but data.
      OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(len(_LEGACY))
        if head.startswith(_ZIP):
            return _read_zip(file)
        if head == _LEGACY:
            return _read_legacy(file)
    raise BadFile(
        "it was not written by torch.save",
        "download it again, or give a file whose name ends in .safetensors",
    )


class _Part:
    """A file to read a pickle from, at most ``_MOST_BYTES``."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._end = file, file.tell() + min(size, _MOST_BYTES)

    def read(self, size: int, /) -> bytes:
        """Read ``size`` bytes; a size that the file does not have is not allocated."""
        return self._file.read(min(size, self._left()))

    def readline(self) -> bytes:
        """Read to the end of the line."""
        return self._file.readline(self._left())

    def _left(self) -> int:
        return max(self._end - self._file.tell(), 0)


def _read_zip(file: BinaryIO) -> dict[str, np.ndarray]:
    size = os.fstat(file.fileno()).st_size
    try:
        with zipfile.ZipFile(file) as archive:
            members, root = _members(archive, size)
            order = members.get(f"{root}byteorder")
            if order is not None and archive.read(order)[:16] != b"little":
                raise BadFile("its byte order is not little", "save it on another machine")
            described = archive.read(members[f"{root}data.pkl"])
            pickled = torch_pickle.loads(_Part(io.BytesIO(described), len(described)))

            def content(storage: Storage) -> bytes:
                member = members.get(f"{root}data/{storage.key}")
                if member is None or member.file_size != storage.bytes:
                    raise BadFile(
                        f"storage {printable(storage.key[:40])} must have {storage.bytes:,} bytes, got "
                        f"{'none' if member is None else format(member.file_size, ',')}"
                    )
                return archive.read(member)

            return _arrays(pickled.value, content)
    except _ZIP_ERRORS as error:
        reason = printable(one_line(error, 100))
        raise BadFile(f"its zip archive is damaged or cut off ({reason})") from error


def _members(archive: zipfile.ZipFile, size: int) -> tuple[dict[str, zipfile.ZipInfo], str]:
    """Members of an archive, and its folder with a slash.

    They are not compressed, not larger than the file together, and inside the folder.
    """
    infos = archive.infolist()
    members = {info.filename: info for info in infos}
    root = _root(members)
    if any(".." in name.split("/") or not name.startswith(root) for name in members):
        raise BadFile("a member of its zip archive has a path outside of its folder")
    if len(members) < len(infos):
        raise BadFile("two members of its zip archive have the same name")
    if any(info.compress_type or info.file_size != info.compress_size for info in infos):
        raise BadFile("its zip archive is compressed, unlike those of torch.save")
    if sum(info.file_size for info in infos) > size:
        raise BadFile("the members of its zip archive are larger than the file")
    return members, root


def _root(members: dict[str, zipfile.ZipInfo]) -> str:
    pickles = [name for name in members if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise BadFile("its zip archive is not one of torch.save", "give a .pth or .pt file")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in members:
        raise BadFile("it is a TorchScript program", "save the state dict of the model")
    return root


def _read_legacy(file: BinaryIO) -> dict[str, np.ndarray]:
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    part = _Part(file, size)
    magic, protocol, system, pickled, keys = (torch_pickle.loads(part) for _ in range(5))
    if (magic.value, protocol.value) != (_MAGIC, _PROTOCOL):
        raise BadFile(f"its format version is not {_PROTOCOL}")
    if not isinstance(system.value, dict) or system.value.get("little_endian") is not True:
        raise BadFile("its byte order is not little-endian", "save it on another machine")
    positions = _positions(file, size, keys.value, pickled.storages)

    def content(storage: Storage) -> bytes:
        file.seek(positions[storage.key])
        return file.read(storage.bytes)

    return _arrays(pickled.value, content)


def _positions(
    file: BinaryIO, size: int, keys: Any, storages: dict[str, Storage]
) -> dict[str, int]:
    """Where in a legacy file the bytes of each storage begin, checked to be in the file."""
    are_names = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not are_names or len(keys) > len(storages) or set(keys) != storages.keys():
        raise BadFile("its list of storages does not match its tensors")
    positions = {}
    for key in keys:
        count = int.from_bytes(file.read(8), "little", signed=True)
        positions[key] = file.tell()
        if count != storages[key].length or positions[key] + storages[key].bytes > size:
            raise BadFile(
                f"it is cut off or damaged: storage {printable(key[:40])} must have "
                f"{storages[key].bytes:,} bytes"
            )
        file.seek(storages[key].bytes, os.SEEK_CUR)
    return positions


def _arrays(value: Any, content: Callable[[Storage], bytes]) -> dict[str, np.ndarray]:
    """Read the tensors of the state dict in an object."""
    tensors = _tensors(value)
    # Once for all tensors of a storage: they share its memory.
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    contents = {key: content(storage) for key, storage in storages.items()}
    if any(len(contents[key]) != storage.bytes for key, storage in storages.items()):
        raise BadFile("it is cut off")
    return {name: tensor.array(contents[tensor.storage.key]) for name, tensor in tensors.items()}


def _tensors(value: Any) -> dict[str, Tensor]:
    """Tensors of a state dict, or of the one that a training program saved among other values."""
    if not isinstance(value, dict):
        raise BadFile(f"it holds a {type(value).__name__}, not a state dict", SAVE_AGAIN)
    inner = {key: found for key, each in value.items() if (found := _named_tensors(each))}
    # The authors of the paper store parameters and running statistics separately.
    if inner.keys() >= {"params", "stats"}:
        return {**inner["params"], **inner["stats"]}
    # Before the tensors of the dict itself: the best accuracy of a training program may be one.
    if known := [name for name in _NAMES if name in inner]:
        return inner[known[0]]
    direct = _named_tensors(value)
    if len(inner) == 1 and all(math.prod(each.shape) == 1 for each in direct.values()):
        return next(iter(inner.values()))
    if direct:
        return direct
    keys = [printable(str(key)[:40]) for key in inner or value]
    what = "several state dicts" if inner else "no state dict"
    raise BadFile(f"it holds {what} (its keys are {listed(keys)})", SAVE_AGAIN)


def _named_tensors(value: Any) -> dict[str, Tensor]:
    """Tensors of a dict by name; numbers, strings and other values next to them are left out."""
    if not isinstance(value, dict):
        return {}
    return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Tensor)}
