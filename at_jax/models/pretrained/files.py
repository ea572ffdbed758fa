"""PyTorch weights files as names and arrays: ``.safetensors``, and ``.pth`` or ``.pt``."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from at_jax import extras
from at_jax.errors import UserError, one_line, printable
from at_jax.models.pretrained import torch_files
from at_jax.models.pretrained.torch_tensors import BadFile

__all__ = ["dumps", "header", "read"]

_SUFFIX = ".safetensors"
_DOWNLOAD = "download it again, or save a PyTorch state dict with safetensors.torch.save_file"


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a state dict, without PyTorch and without executing code from the file.

    Args:
      path: of a ``.safetensors`` file, or of a file written by ``torch.save``, in the zip or the legacy
        format. The latter contains a state dict, or a dict with one among numbers and strings, as saved by
        training programs. The ``module.`` prefix of ``DataParallel`` and ``AveragedModel`` is removed.

    Returns:
      Name to array, in the file's shapes and dtypes.

    Raises:
      UserError: naming the file and what is wrong with it.
    """
    path = pathlib.Path(path).expanduser()
    shown = printable(str(path))
    try:
        if path.is_dir():
            raise BadFile("it is a directory", "give the file in it")
        if not path.exists():
            raise BadFile("there is no such file", "give the path of one")
        if not path.is_file():  # a pipe or a device: reading it may never end
            raise BadFile("it is not a regular file", "give the path of one")
        found = (
            _read_safetensors(path) if path.suffix.lower() == _SUFFIX else torch_files.read(path)
        )
    except BadFile as error:
        raise UserError(
            f"{shown} cannot be read as weights: {error.reason}: {error.fix}"
        ) from error
    except OSError as error:
        raise UserError(
            f"{shown} cannot be read as weights ({error.strerror}): check its path and permissions"
        ) from error
    return _without_prefix(found)


def _without_prefix(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names without the prefixes of ``DataParallel`` and ``torch.compile``, which may be nested."""
    # AveragedModel (SWA, EMA) adds its number of updates.
    weights = {name: array for name, array in found.items() if name != "n_averaged"}
    for prefix in ("module.", "_orig_mod."):
        if weights and all(name.startswith(prefix) for name in weights):
            without = {name.removeprefix(prefix): array for name, array in weights.items()}
            return _without_prefix(without)
    return found


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    safetensors = _safetensors(f"reading {path}")
    try:
        return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        reason = one_line(error)
        raise BadFile(f"it is not a complete safetensors file ({reason})", _DOWNLOAD) from error
    except (AttributeError, KeyError, TypeError) as error:  # of the package, for dtypes of NumPy's
        raise BadFile(
            "it has a dtype that NumPy does not support", "save its weights as float32"
        ) from error


def _safetensors(what: str) -> Any:
    """The package safetensors.

    Raises:
      UserError: if it is not installed.
    """
    with extras.needed_for(what):
        import safetensors
        import safetensors.numpy
    return safetensors


def header(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the texts in the header of a ``.safetensors`` file; empty for a file of another format.

    Raises:
      UserError: as :func:`read`.
    """
    path = pathlib.Path(path).expanduser()
    if path.suffix.lower() != _SUFFIX or not path.is_file():
        return {}
    safetensors = _safetensors(f"reading {path}")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError):
        return {}  # `read` reports the problem


def dumps(state_dict: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """Format a state dict as a safetensors file that PyTorch programs read.

    Args:
      state_dict: names of PyTorch to arrays.
      metadata: texts for the header of the file.

    Raises:
      UserError: if the package safetensors is not installed.
    """
    safetensors = _safetensors("writing safetensors")
    # It takes the memory of an array as it is, without its strides.
    arrays = {name: np.ascontiguousarray(array) for name, array in state_dict.items()}
    return safetensors.numpy.save(arrays, metadata={"format": "pt", **(metadata or {})})
