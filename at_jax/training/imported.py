"""Runs made of weights that were trained elsewhere: :func:`at_jax.checkpoint.load` opens them."""

import contextlib
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from at_jax import paths
from at_jax.errors import UserError
from at_jax.training.config import default_config
from at_jax.training.files import config_record, provenance, run_files, storage
from at_jax.training.files.checkpoints import Checkpoints

__all__ = ["check_free", "create", "describe"]


def describe(
    name: str,
    num_classes: int,
    *,
    class_names: Sequence[str] = (),
    image_shape: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
) -> dict[str, Any]:
    """Describe a network in its run, as :func:`at_jax.training.components.networks.describe` does.

    Args:
      name: of the network, for :func:`at_jax.models.build`.
      num_classes: K.
      class_names: by label; empty for "class 0", "class 1", ...
      image_shape: ``(H, W, C)`` that it was trained with.
      mean: of its normalization, in 0..255.
      std: of its normalization, in 0..255.

    Raises:
      UserError: for another number of names than classes, or of means than channels.
    """
    names = list(class_names) or [f"class {label}" for label in range(num_classes)]
    if len(names) != num_classes:
        raise UserError(
            f"a network of {num_classes} classes must have as many class names, got {len(names)}: write "
            "one name per line, in the order of the labels"
        )
    for what, numbers in (("mean", mean), ("std", std)):
        if len(numbers) != image_shape[-1]:
            raise UserError(
                f"{what} must have a number for each of the {image_shape[-1]} channels of the first "
                f"convolution, got {len(numbers)}: pass --{what} with that many"
            )
    return {
        "name": name,
        "needs_forward_inputs": False,
        "num_classes": num_classes,
        "class_names": names,
        "image_shape": list(image_shape),
        "mean": list(mean),
        "std": list(std),
        "bit_depth": 8,
        "dtype": "float32",
    }


def check_free(destination: str | os.PathLike[str], *, is_file: bool = False) -> pathlib.Path:
    """Check that a new folder or file can be made, and return its path. A folder may exist if it is empty.

    Raises:
      UserError: if it exists, or is not on this machine.
    """
    path = paths.parse(destination)
    if paths.scheme(path):
        raise UserError(
            f"DEST must be a local path, got {path}: write it here, and copy it when it is complete"
        )
    # Without "..": its name is that of what is written.
    path = paths.reachable(os.path.abspath(path))
    try:
        is_empty = not is_file and path.is_dir() and not any(path.iterdir())
    except OSError as error:
        raise UserError(f"DEST {path} cannot be read ({error.strerror}): choose another") from error
    if os.path.lexists(path) and (path.is_symlink() or not is_empty):
        raise UserError(f"DEST {path} exists already: choose another, or delete it")
    return path


def create(
    workdir: pathlib.Path,
    variables: Mapping[str, Any],
    description: Mapping[str, Any],
    source: str,
) -> None:
    """Write a finished run with one checkpoint. It appears when it is complete.

    Args:
      workdir: of :func:`check_free`.
      variables: of the network, ``params`` and ``batch_stats``.
      description: of :func:`describe`.
      source: where the weights are from, for the record.

    Raises:
      UserError: if it cannot be written.
    """
    temporary = workdir.with_name(f".{workdir.name}.{uuid.uuid4().hex}.tmp")
    created = [folder for folder in workdir.parents if not folder.exists()]
    try:
        temporary.mkdir(parents=True)
        _write(temporary, variables, description, source)
        os.replace(temporary, workdir)  # onto an empty folder or nothing
    except (OSError, storage.StorageError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"DEST {workdir} cannot be written ({reason}): choose another") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in created:  # those that stayed empty
            with contextlib.suppress(OSError):
                folder.rmdir()


def _write(
    workdir: pathlib.Path, variables: Mapping[str, Any], description: Mapping[str, Any], source: str
) -> None:
    config = default_config()
    name = description["name"]
    config.update({"student": name, "method": "none"})
    # Evaluated on a folder of images: at-jax evaluate --workdir RUN --data_dir DIR
    config.data.update({"source": "folder", "image_size": description["image_shape"][0]})
    config.data.update({key: tuple(description[key]) for key in ("mean", "std")})
    stored = json.loads(json.dumps(config.to_dict()))
    stored[config_record.ARGUMENTS] = {"weights": {"name": source}}
    stored[config_record.IDENTITY] = {"run": uuid.uuid4().hex}
    meta = {"model": dict(description), "student": name, "progress": {}, "config": stored}
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(0, dict(variables), meta, None)
        checkpoints.wait()
    run_files.write_json(workdir / run_files.CONFIG, stored)
    result = {
        "student": name,
        "weights": source,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        "finished": provenance.now(),
    }
    run_files.write_json(workdir / run_files.RESULT, result)
