"""The networks that are looked at: of a run, its teacher, itself before training, pretrained ones."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from at_jax import checkpoint, data, methods, models, run_directory, weights
from at_jax.figures import attention, canvas

STUDENT, TEACHER, UNTRAINED = "student", "teacher", "untrained"

# torchvision's and timm's normalisation of ImageNet, in 0..255 units.
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A trained network and what it must be shown.

    Attributes:
      title: what a drawing calls it: "student".
      module: of Flax.
      variables: of the module.
      description: as ``Experiment.description``: image_shape, mean, std, num_classes.
    """

    title: str
    module: nn.Module
    variables: Any
    description: dict[str, Any]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images it was trained on."""
        return tuple(self.description["image_shape"])

    def class_name(self, label: int) -> str:
        """What a class is called, where the run knows it."""
        names = self.description.get("class_names") or ()
        return str(names[label]) if label < len(names) else f"class {label}"

    def look(
        self, images: np.ndarray, *, kind: str = "sum", p: float = 2, batch: int = 0
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Logits ``(B, K)`` and maps ``{point: (B, h, w)}`` of images uint8 ``(B, H, W, C)``.

        A ``batch`` pads to that many images, for which the program may be compiled already.
        """
        real = len(images)
        images = images[np.arange(max(real, batch)) % real]
        logits, looked = attention.answers_and_maps(
            self.module, self.variables, self.normalize(images), kind=kind, p=p
        )
        return logits[:real], {name: q[:real] for name, q in looked.items()}

    def sensitive(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits ``(B, K)`` and |J| summed over channels ``(B, H, W)``, as `attention.gradient_maps`."""
        normalised = self.normalize(images)
        return attention.gradient_maps(self.module, self.variables, normalised, labels)

    def normalize(self, images: np.ndarray) -> jax.Array:
        """uint8 ``(B, H, W, C)`` to what the network was trained on."""
        return data.normalize(images, self.description["mean"], self.description["std"])


def single_device(module: nn.Module) -> nn.Module:
    """The same network without an axis for batch statistics: what is drawn runs on one device."""
    return module.clone(bn_axis_name=None) if hasattr(module, "bn_axis_name") else module


def of_run(workdir: str | pathlib.Path, *, which: str = "latest", title: str = "") -> Network:
    """The network that a run has trained.

    Args:
      workdir: of the run.
      which: ``"latest"`` or ``"best"``.
      title: empty for the method's name.

    Raises:
      ValueError: if there is no run, or one of a module of the user's own.
    """
    title = title or canvas.label(stored_config(workdir)["method"])
    return Network(title, *checkpoint.open_run(workdir, which=which))


def before_training(student: Network, seed: int) -> Network:
    """A student as its run began with it: the initialisation is a function of the seed alone.

    Nothing is kept of it on disk; `at_jax.state.create` makes it from the same key, to the rounding
    of the last digit.

    Args:
      student: trained.
      seed: of its run.

    Returns:
      The network, titled "untrained".
    """
    key_student, _ = jax.random.split(jax.random.key(seed))
    init = jax.jit(functools.partial(student.module.init, train=False))
    given = key_student, jnp.zeros((1, *student.image_shape))
    # It runs once: optimising it would take five seconds for a WRN-10-1, and change the last digit.
    quickly = {"xla_backend_optimization_level": 0}
    variables = init.lower(*given).compile(compiler_options=quickly)(*given)
    return dataclasses.replace(student, title=UNTRAINED, variables=variables)


def teacher_of(workdir: str | pathlib.Path) -> Network | None:
    """The teacher of a run: the one it was given, or the one it trained; None without."""
    config = stored_config(workdir)
    if not methods.needs_teacher(config["method"]):
        return None
    given = config["teacher"]["checkpoint"]
    return of_run(given or pathlib.Path(workdir) / "teacher", title=TEACHER)


def pretrained(
    path: str | os.PathLike[str], name: str, num_classes: int, image_size: int
) -> Network:
    """A ResNet with weights of torchvision or timm, see :mod:`at_jax.weights`.

    Args:
      path: the ``.safetensors`` file.
      name: of the network: ``"resnet_18"``.
      num_classes: 1000 for ImageNet.
      image_size: pixels a side that images are brought to.

    Raises:
      ValueError: if there is no such network, or the file does not fit it.
    """
    module = models.build(name, num_classes)
    if not isinstance(module, models.ResNet):
        raise ValueError(f"--model must be a ResNet for --weights, got {name!r}: such as resnet_18")
    if not pathlib.Path(path).is_file():
        raise ValueError(f"--weights: there is no file {os.fspath(path)!r}: correct the path")
    described = {
        "image_shape": [image_size, image_size, 3],
        "mean": list(_MEAN),
        "std": list(_STD),
        "num_classes": num_classes,
    }
    return Network(name, module, weights.load_resnet(path, module), described)


def stored_config(workdir: str | pathlib.Path) -> dict[str, Any]:
    """The config.json of a run, of this version or another.

    Raises:
      ValueError: if there is none, or it is damaged.
    """
    path = pathlib.Path(workdir).expanduser() / run_directory.CONFIG
    if not path.is_file():
        raise ValueError(
            f"{workdir} holds no run (no {run_directory.CONFIG}): give the --workdir of one"
        )
    try:
        stored = json.loads(path.read_text())
        _ = stored["method"], stored["student"], stored["seed"], stored["teacher"]["checkpoint"]
        _ = stored["transfer"]["points"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not readable as a config ({error!r}): choose another run"
        ) from error
    return stored


def pairs(
    texts: Sequence[str], names_s: Sequence[str], names_t: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Which points are drawn side by side: those that were compared in training, else all in order.

    Args:
      texts: ``transfer.points`` of the run's config, ``"group3<-stage3"``; or none.
      names_s: points of the student.
      names_t: of the teacher; without one, the student's own.

    Returns:
      Pairs (student, teacher); none where their numbers differ.

    >>> pairs((), ("group1", "group2"), ("stage1", "stage2"))
    (('group1', 'stage1'), ('group2', 'stage2'))
    >>> pairs(("group2 <- stage3",), ("group1", "group2"), ("stage3",))
    (('group2', 'stage3'),)
    """
    if texts:
        return tuple(tuple(part.strip() for part in text.split("<-")) for text in texts)
    return tuple(zip(names_s, names_t, strict=True)) if len(names_s) == len(names_t) else ()


def check_images(shown: Sequence[Network]) -> None:
    """Raise unless all networks want images of one size, of the same number of classes.

    Raises:
      ValueError: naming the two that differ.
    """
    first, *others = shown
    for network in others:
        for key in ("image_shape", "num_classes"):
            if network.description[key] != first.description[key]:
                raise ValueError(
                    f"{network.title} and {first.title} must be of the same images and classes, got {key} "
                    f"{network.description[key]} and {first.description[key]}: compare runs on one data set"
                )
