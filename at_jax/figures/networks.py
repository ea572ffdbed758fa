"""Networks that are drawn: of a run, its teacher, its student before training, or pretrained."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from at_jax import data, intermediates, paths, terms
from at_jax.distributed import compilation
from at_jax.errors import printable
from at_jax.figures import attention
from at_jax.models import imagenet
from at_jax.models import pretrained as weights
from at_jax.training import imported, state
from at_jax.training.components import tracing
from at_jax.training.components.networks import open_run
from at_jax.training.files import run_files

__all__ = [
    "ALONE", "BEFORE", "STUDENT", "TEACHER", "UNTRAINED", "WITH_TRANSFER", "Network", "before_training",
    "of_imagenet", "of_run", "pretrained", "single_device", "with_points",
]  # fmt: skip

STUDENT, TEACHER, UNTRAINED, BEFORE = "student", "teacher", "untrained", "before training"
# Titles of two students next to each other: without and with the terms of the run's method.
ALONE, WITH_TRANSFER = "student alone", "student with transfer"


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A network and how its images are prepared.

    Attributes:
      title: in figures, such as "student".
      module: a linen module.
      variables: of the module.
      description: as ``Run.description``: image_shape, mean, std, and class_names where known.
      paths: submodules whose output is a transfer point, in addition to the taps.
      inputs: further keyword arguments of the module, from normalized images; None for none.
    """

    title: str
    module: nn.Module
    variables: Any
    description: dict[str, Any]
    paths: tuple[str, ...] = ()
    inputs: Callable[[jax.Array], Mapping[str, Any]] | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images."""
        height, width, channels = self.description["image_shape"]
        return height, width, channels

    @property
    def model_name(self) -> str:
        """Name for :func:`at_jax.models.build`, or class of a user-defined module."""
        return self.description.get("name") or type(self.module).__name__

    def has_classes_of(self, other: "Network") -> bool:
        """Whether both networks predict the same classes, by name if the names are known."""
        ours, theirs = self.description, other.description
        if ours.get("class_names") and theirs.get("class_names"):
            return list(ours["class_names"]) == list(theirs["class_names"])
        return ours["num_classes"] == theirs["num_classes"]

    def class_name(self, label: int) -> str:
        """Name of a class, or its number where the run does not know it."""
        names = self.description.get("class_names") or ()
        return printable(str(names[label])) if label < len(names) else f"class {label}"

    def attention(
        self, images: np.ndarray, *, mappings: tuple = (("sum", 2),), batch: int = 0
    ) -> tuple[np.ndarray, tuple[dict[str, np.ndarray], ...]]:
        """Compute logits and attention maps in one forward pass.

        Args:
          images: uint8 ``(B, H, W, C)``.
          mappings: pairs (kind, p).
          batch: pad to this number of images, for which the program may be compiled already.

        Returns:
          Logits ``(B, K)``, and ``{point: (B, h, w)}`` of each mapping.
        """
        size = len(images)
        normalized = self.normalize(images[np.arange(max(size, batch)) % size])
        logits, found = attention.logits_and_mappings(
            self.module,
            self.variables,
            normalized,
            mappings,
            paths=self.paths,
            inputs=self.inputs(normalized) if self.inputs else None,
        )
        return logits[:size], tuple({name: q[:size] for name, q in each.items()} for each in found)

    def input_gradient(
        self, images: np.ndarray, labels: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits ``(B, K)`` and ``(B, H, W)``, see :func:`at_jax.figures.gradient_maps`."""
        normalized = self.normalize(images)
        return attention.gradient_maps(self.module, self.variables, normalized, labels)

    def normalize(self, images: np.ndarray) -> jax.Array:
        """Resize and normalize uint8 images ``(B, H, W, C)`` as in the network's training."""
        pixels = jnp.asarray(images)
        if images.shape[1:] != self.image_shape:  # a teacher with an image size of its own
            shape = (len(images), *self.image_shape)
            pixels = jax.image.resize(pixels.astype(jnp.float32), shape, method="bilinear")
        return data.normalize(pixels, self.description["mean"], self.description["std"])


def single_device(module: nn.Module) -> nn.Module:
    """Copy a network without an axis for batch statistics: figures are drawn on one device."""
    return module.clone(bn_axis_name=None) if hasattr(module, "bn_axis_name") else module


def with_points(network: Network, points: Sequence[str]) -> Network:
    """Add the transfer points that the network does not tap, as paths of submodules."""
    if not points:
        return network
    taps = tracing.shapes(network.module, network.image_shape, network.title).taps
    return dataclasses.replace(network, paths=tuple(p for p in points if p not in taps))


def title_of(workdir: pathlib.Path) -> str:
    """Title of the student of a run: that of its method, or the file that its weights are from."""
    weights = run_files.read_arguments(workdir).get("weights")
    return printable(weights["name"]) if weights else terms.title(run_files.read_method(workdir))


def of_run(
    workdir: str | pathlib.Path,
    *,
    which: str = "latest",
    title: str = "",
    module: nn.Module | str | None = None,
) -> Network:
    """Load the network that a run trained.

    Args:
      workdir: of the run.
      which: ``"latest"`` or ``"best"``.
      title: empty for :func:`title_of` the run.
      module: for a run that trained a user-defined module: an instance, or ``"package:name"``.

    Raises:
      UserError: if there is no run, or the module must be passed.
    """
    title = title or title_of(paths.parse(workdir))
    return Network(title, *open_run(workdir, which=which, module=module))


def before_training(
    student: Network, seed: int, initial: Mapping[str, Any] | None = None
) -> Network:
    """Recompute a student's initialization from the seed of its run.

    :func:`at_jax.training.state.create` uses the same key; results differ by rounding only.

    Args:
      student: trained.
      seed: of its run.
      initial: variables that it started from; those that it lacks are initialized.

    Returns:
      The network, titled "untrained", or "before training" if it started from other variables.
    """

    def init(key: jax.Array, images: jax.Array) -> dict[str, Any]:
        made = intermediates.initialize(student.module, key, images)
        return {"params": made["params"], **state.carried_collections(made)}

    key_student, _ = jax.random.split(jax.random.key(seed))
    given = key_student, jnp.zeros((1, *student.image_shape))
    variables = jax.jit(init, compiler_options=compilation.quick_options())(*given)
    if initial is None:
        return dataclasses.replace(student, title=UNTRAINED, variables=variables)
    variables = state.replaced(variables, initial)
    return dataclasses.replace(student, title=BEFORE, variables=variables)


def pretrained(
    path: str | os.PathLike[str],
    name: str = "",
    num_classes: int | None = None,
    image_size: int | None = None,
) -> Network:
    """Load a network with weights of PyTorch.

    Args:
      path: see :func:`at_jax.training.imported.read_file`.
      name: of the network, such as ``"resnet_18"``.
      num_classes: K.
      image_size: height and width of its images, in pixels.

    Raises:
      UserError: if there is no such network, or the file cannot be read or does not fit it.
    """
    file = imported.read_file(path, name, num_classes=num_classes, image_size=image_size)
    description = {
        "name": file.name,
        "image_shape": list(file.image_shape),
        "mean": list(file.mean),
        "std": list(file.std),
        "num_classes": file.num_classes,
        **({"class_names": list(file.class_names)} if file.class_names else {}),
    }
    return Network(file.name, file.module, file.loaded.variables, description)


def of_imagenet(name: str) -> Network:
    """Load a network of :mod:`at_jax.models.imagenet`: ``"efficientnet_lite0"``.

    Raises:
      UserError: if the extra ``pretrained`` is not installed.
    """
    classes = list(imagenet.class_names())
    found = pretrained(imagenet.weights_file(), name, len(classes), 224)
    title = weights.family(found.module).title(found.module)
    description = found.description | {"name": title, "class_names": classes}
    return dataclasses.replace(found, title=title, description=description)
