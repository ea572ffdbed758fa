"""Weights that a student starts from: a file of PyTorch weights, or the network of a run."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from at_jax import data, models, paths
from at_jax.data.identity import class_difference
from at_jax.distributed import processes
from at_jax.errors import UserError, naming
from at_jax.models import pretrained
from at_jax.training.components import compatibility, networks, tracing
from at_jax.training.components.compatibility import Teacher
from at_jax.training.components.teacher_images import Normalization
from at_jax.training.files import identity
from at_jax.training.settings import InitSettings

__all__ = ["Initial", "check_place", "is_file", "load", "load_teacher", "of_settings"]

_SUFFIXES = (".safetensors", ".pth", ".pt")
# Number of classes of ImageNet: a file with another number is read twice.
_CLASSES = 1000


class Initial(NamedTuple):
    """Start of a student.

    Attributes:
      variables: collection name to arrays on the host. Those of a classifier for other classes are left
        out: they are initialized as without weights.
      fingerprint: of the variables; see :func:`at_jax.training.files.identity.of_weights`.
      note: line for the console.
    """

    variables: dict[str, Any]
    fingerprint: str
    note: str


def is_file(place: str) -> bool:
    """Whether weights are those of a file, not of a run."""
    return place.lower().endswith(_SUFFIXES)


def check_place(key: str, place: str) -> None:
    """Raise unless a file or a run exists, or none is given.

    Args:
      key: of the config, for the message.
      place: its value.

    Raises:
      UserError: naming the place.
    """
    if not place:
        return
    example = f"--config.{key}=resnet18.safetensors"
    if is_file(place):
        if not os.path.isfile(os.path.expanduser(place)):
            raise UserError(
                f"{key}: there is no file {place!r}: give the path of one, such as {example}"
            )
    elif key == "teacher.weights":
        raise UserError(
            f"{key} must be a {', '.join(_SUFFIXES)} file, got {place!r}: give one, such as {example}, or "
            "a finished run as teacher.checkpoint"
        )
    elif not paths.reachable(paths.parse(place)).is_dir():
        raise UserError(
            f"{key}: there is no run in {place!r}: give the workdir of a run, or a "
            f"{', '.join(_SUFFIXES)} file, such as {example}"
        )


def load_teacher(path: str, name: str, dtype: str) -> Teacher:
    """Load pretrained weights as a teacher, with as many classes as the file has.

    A file that does not describe its network was trained with the usual normalization of such files, as
    ``at-jax weights`` assumes.

    Args:
      path: of the file.
      name: of the network, see :func:`at_jax.models.build`.
      dtype: of the teacher's arithmetic.

    Raises:
      UserError: if the file is damaged or does not fit the network.
    """
    check_place("teacher.weights", path)
    # Not networks.build, which imports: the name may come from a file of a run.
    module = models.build(name, _CLASSES, jax.numpy.dtype(dtype))
    variables, is_new, classes, described = _read(path, module)
    if is_new:  # the file has another number of classes
        module = models.build(name, classes, jax.numpy.dtype(dtype))
        variables, *_ = _read(path, module)
    description = described | {"num_classes": classes} if described else None
    variables = jax.tree.map(jax.numpy.asarray, variables)
    return Teacher(module, variables, description, _trained_with(module, described))


def of_settings(
    settings: InitSettings, student: nn.Module, dataset: data.Dataset, module: Any = None
) -> Initial | None:
    """Load the weights of a config, see :func:`load`; None without any."""
    return load(settings.weights, student, dataset, module) if settings.weights else None


def load(
    place: str, student: nn.Module, dataset: data.Dataset, module: nn.Module | str | None = None
) -> Initial:
    """Load the weights that a student starts from.

    Args:
      place: a file, or the workdir of a run.
      student: the network.
      dataset: that it will be trained on.
      module: for a run that trained a user-defined module, see
        :func:`at_jax.training.components.networks.open_run`.

    Raises:
      UserError: if the weights cannot be read, or are those of another network.
    """
    check_place("init.weights", place)
    wanted = tracing.shapes(student, dataset.image_shape, "student").variables
    difference = None
    with naming("init.weights", place):
        if is_file(place):
            variables, is_new, classes, described = _read(place, student)
            if is_new:
                difference = f"{classes} classes in the file and {dataset.num_classes} in the data"
        else:
            _, variables, described = networks.open_run(place, module=module or student)
            variables = jax.device_get(variables)
    note = place
    if described:
        there = "in the file" if is_file(place) else "in the run"
        difference = class_difference(
            described["class_names"], dataset.class_names, (there, "in the data")
        )
    if difference:
        head = _head(student, dataset, wanted)
        if head:
            note += f", with a new classifier: {difference}"
        variables = _without(variables, head)
        wanted = _without(wanted, head)
    note += _other_normalization(_trained_with(student, described), dataset)
    fix = "give weights of the same network, or choose their network as student"
    if described and described["name"]:
        fix = f"they are those of {described['name']}; {fix}"
    compatibility.check_variables(
        student, variables, wanted, whose=f"init.weights={place!r}", fix=fix
    )
    return Initial(variables, identity.of_weights(variables), note)


def _trained_with(module: nn.Module, described: Mapping[str, Any]) -> Normalization:
    """The normalization that a file describes, or the usual one of files for a network."""
    return Normalization.of(described or pretrained.family(module)._asdict())


def _other_normalization(theirs: Normalization, dataset: data.Dataset) -> str:
    """Format a note if a network saw images of another normalization; empty if it did not."""
    if theirs.is_close(Normalization(dataset.mean, dataset.std)):
        return ""
    return f", trained with another normalization: {theirs.as_keys('data')}"


def _read(path: str, module: nn.Module) -> tuple[dict[str, Any], bool, int, dict[str, Any]]:
    """Variables on the host, whether the classifier is new, and classes and description of the file."""

    def read() -> tuple[Any, ...]:
        loaded = pretrained.load(path, module, key=jax.random.key(0))
        variables = jax.tree.map(np.asarray, jax.device_get(loaded.variables))
        described = pretrained.description(path)
        return variables, bool(loaded.new_head), int(loaded.classes), described

    sent: tuple[dict[str, Any], bool, int, dict[str, Any]] = processes.broadcast_from_primary(read)
    return sent


def _head(
    student: nn.Module, dataset: data.Dataset, wanted: Mapping[str, Any]
) -> set[tuple[str, ...]]:
    """Paths of the variables whose shape depends on the number of classes."""
    classes = getattr(student, "num_classes", None)
    if not isinstance(classes, int):
        return set()
    more = tracing.shapes(
        student.clone(num_classes=classes + 1), dataset.image_shape, "student"
    ).variables
    here, there = (traverse_util.flatten_dict(dict(tree)) for tree in (wanted, more))
    return {path for path, leaf in here.items() if leaf.shape != there[path].shape}


def _without(variables: Mapping[str, Any], head: set[tuple[str, ...]]) -> dict[str, Any]:
    flat = traverse_util.flatten_dict(dict(variables))
    return traverse_util.unflatten_dict({k: v for k, v in flat.items() if k not in head})
