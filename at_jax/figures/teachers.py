"""The teacher of a run, loaded to be drawn."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from at_jax import paths, terms
from at_jax.errors import UserError
from at_jax.figures import networks
from at_jax.figures.networks import Network
from at_jax.training.components import initialization, teacher_images
from at_jax.training.components.networks import open_run
from at_jax.training.components.teacher_images import Normalization
from at_jax.training.files import identity, run_files

__all__ = ["teacher_of"]


def teacher_of(
    workdir: str | pathlib.Path, *, module: nn.Module | str | None = None
) -> Network | None:
    """Load the teacher of a run: the one in its config, or the one that it trained.

    Returns:
      None without a teacher, and for a teacher that was passed as an argument: it is not stored.

    Raises:
      UserError: if the teacher cannot be loaded, or is another than that of the run.
    """
    workdir = paths.parse(workdir)
    config, method = run_files.read_config(workdir)["teacher"], run_files.read_method(workdir)
    if method == "none" or "teacher" in run_files.read_arguments(workdir):
        return None
    trained = workdir / run_files.TEACHER
    exists = config["weights"] or config["checkpoint"] or trained.is_dir()
    parts = [terms.TERMS.get(name) for name in method.split("+")]
    is_needed = any(term is not None and term.needs_teacher for term in parts)
    # None is a user-defined term, which need not have a teacher.
    if not is_needed and not (exists and None in parts):
        return None
    try:
        if config["weights"]:
            teacher = _of_weights(workdir, config, module)
        else:
            place = config["checkpoint"] or trained
            teacher = networks.of_run(place, title=networks.TEACHER, module=module)
    except UserError as error:
        key = "weights" if config["weights"] else "checkpoint"
        raise UserError(
            f"the teacher of the run in {workdir} cannot be loaded: {error}; if it was moved, run the "
            f"command of the run again with --config.teacher.{key}=PLACE"
        ) from error
    identified = run_files.read_identity(workdir)
    key = "weights" if config["weights"] else "checkpoint"
    place = f"teacher.{key}={config[key] or str(trained)!r}"
    identity.check_teacher(workdir, identified, teacher.variables, place)
    return dataclasses.replace(teacher, description=_with_own_images(teacher.description, config))


def _of_weights(
    workdir: pathlib.Path, config: Mapping[str, Any], module: nn.Module | str | None
) -> Network:
    """A teacher of a file, with the student's classes if their numbers are equal."""
    _, _, description = open_run(workdir, module=module)
    dtype = description["dtype"]
    teacher = initialization.load_teacher(config["weights"], config["model"], dtype)
    network: Any = teacher.module
    if network.num_classes != description["num_classes"]:
        description = description | {"num_classes": network.num_classes, "class_names": []}
    student = Normalization.of(description)
    used = teacher_images.choose(Normalization.of(config), teacher.trained_with, student)
    description = description | {"name": config["model"], "mean": [*used.mean], "std": [*used.std]}
    return Network(networks.TEACHER, network, teacher.variables, description)


def _with_own_images(description: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """A description with the teacher's own image size and normalization, where the config sets them."""
    size, channels = config["image_size"], description["image_shape"][-1]
    own = {
        "image_shape": [size, size, channels] if size else None,
        "mean": list(config["mean"]),
        "std": list(config["std"]),
    }
    return description | {key: value for key, value in own.items() if value}
