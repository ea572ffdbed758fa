"""Weights that were trained elsewhere: reading their files, and runs made of them."""

import contextlib
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax import models
from at_jax.data.files.reading import MAX_DEPTH
from at_jax.errors import UserError, printable
from at_jax.models import pretrained
from at_jax.training.config import default_config
from at_jax.training.files import config_record, provenance, run_files, storage
from at_jax.training.files.checkpoints import Checkpoints
from at_jax.training.state import parameter_count

__all__ = ["WeightsFile", "create", "describe", "read_file"]

_MOST_CLASSES, _MOST_PIXELS = 100_000, 4096
_USUAL = "resnet_18"  # network of files that name none


class WeightsFile(NamedTuple):
    """The network of a PyTorch weights file.

    Attributes:
      module: the network.
      loaded: its variables.
      name: for :func:`at_jax.models.build`.
      num_classes: K.
      class_names: by label; empty if unknown.
      image_shape: ``(H, W, C)`` that it was trained with.
      mean: of its normalization, in 0..255.
      std: of its normalization, in 0..255.
      resize: pixels of the shorter side of a photograph before the center is cropped; 0: those of the crop.
      bit_depth: of 16-bit image files.
    """

    module: nn.Module
    loaded: pretrained.Loaded
    name: str
    num_classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int = 0
    bit_depth: int = MAX_DEPTH


def read_file(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    num_classes: int | None = None,
    image_size: int | None = None,
    resize: int | None = None,
    key: jax.Array | None = None,
) -> WeightsFile:
    """Read a PyTorch weights file.

    Args:
      path: of the ``.safetensors``, ``.pth`` or ``.pt`` file.
      name: of the network; by default as the file describes it, or ``"resnet_18"``.
      num_classes: K; by default of the file.
      image_size: height and width of its images; by default of the file, or usual for the network.
      resize: see :class:`WeightsFile`; by default of the file.
      key: initializes a classifier with another number of classes, which is otherwise an error.

    Raises:
      UserError: if a number is out of range or too small for the network, or the file cannot be read or
        does not fit the network.
    """
    _check_range("num_classes", num_classes, 2, _MOST_CLASSES)
    _check_range("image_size", image_size, 8, _MOST_PIXELS)
    _check_range("resize", resize, 8, 2 * _MOST_PIXELS)
    stored = pretrained.description(path)
    subject = printable(str(path))
    if not (name := name or stored.get("name")):
        name, subject = _USUAL, f"{subject} (without --model: {_USUAL})"
    any_classes = models.build(name, 1000)
    family, found = pretrained.family(any_classes), pretrained.read(path)
    matched = pretrained.match(found, any_classes)
    classes = num_classes or matched.classes or 1000
    module = models.build(name, classes)
    names = tuple(stored.get("class_names", ()))
    *sides, channels = matched.image_shape
    usual = tuple(stored.get("image_shape", sides)[:2])
    height, width = (image_size, image_size) if image_size else usual
    resize = resize or (stored.get("resize", 0) if (height, width) == usual else 0)  # for its size
    if resize and resize < min(height, width):
        raise UserError(
            f"--resize must be at least the image size, {min(height, width)}, got {resize}: change it"
        )
    loaded = pretrained.convert(found, module, key=key, source=subject)
    _check_size(module, loaded.variables, (height, width, channels))
    return WeightsFile(
        module,
        loaded,
        name,
        classes,
        names if len(names) == classes else (),
        (height, width, channels),
        tuple(stored.get("mean", family.mean)),
        tuple(stored.get("std", family.std)),
        resize,
        stored.get("bit_depth", MAX_DEPTH),
    )


def _check_range(what: str, value: int | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise UserError(f"--{what} must be within {least}..{most}, got {value}: change it")


def _check_size(
    module: nn.Module, variables: Mapping[str, Any], image_shape: tuple[int, ...]
) -> None:
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    try:
        jax.eval_shape(module.apply, variables, images)
    except UserError as error:
        raise UserError(f"--image_size must suit the network: {error}") from error


def describe(
    file: WeightsFile,
    *,
    class_names: Sequence[str] = (),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Describe a network in its run, as :func:`at_jax.training.components.networks.describe` does.

    Args:
      file: of the network.
      class_names: by label; empty for "class 0", "class 1", ...
      mean: of its normalization, in 0..255; None for that of the file.
      std: of its normalization, in 0..255; None for that of the file.

    Raises:
      UserError: for another number of names than classes, or of means than channels.
    """
    classes, mean, std = file.num_classes, mean or file.mean, std or file.std
    names = list(class_names) or [f"class {label}" for label in range(classes)]
    if len(names) != classes:
        raise UserError(
            f"a network of {classes} classes must have as many class names, got {len(names)}: write one "
            f"name per line, in the order of the labels, or pass --num_classes={len(names)} for a new "
            "classifier"
        )
    for what, numbers in (("mean", mean), ("std", std)):
        if len(numbers) != file.image_shape[-1]:
            raise UserError(
                f"{what} must have a number for each of the {file.image_shape[-1]} channels of the first "
                f"convolution, got {len(numbers)}: pass --{what} with that many"
            )
    return {
        "name": file.name,
        "needs_forward_inputs": False,
        "num_classes": classes,
        "class_names": names,
        "image_shape": list(file.image_shape),
        "mean": list(mean),
        "std": list(std),
        "bit_depth": file.bit_depth,
        "resize": file.resize,
        "dtype": "float32",
    }


def create(
    workdir: pathlib.Path,
    variables: Mapping[str, Any],
    description: Mapping[str, Any],
    source: str,
) -> None:
    """Write a finished run with one checkpoint. It appears when it is complete.

    Args:
      workdir: a local folder that is empty or does not exist.
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
    height, width, _ = description["image_shape"]
    # Images that are not square keep their size.
    config.data.update({"source": "folder", "image_size": height if height == width else 0})
    config.data.resize = description["resize"] if height == width else 0
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
        "parameters": parameter_count(variables["params"]),
        "finished": provenance.now(),
    }
    run_files.write_json(workdir / run_files.RESULT, result)
