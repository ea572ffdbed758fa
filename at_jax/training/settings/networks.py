"""Config keys of the teacher and of the student's initialization."""

import dataclasses

from at_jax.options import EPOCH_LIST, EPOCHS, Rule, between, items, option
from at_jax.training.settings.data import IMAGES, MEANS, STDS

__all__ = ["InitSettings", "TeacherSettings", "is_qualified"]


def is_qualified(name: str) -> bool:
    """Whether a network is one of the user, ``package:name``, not one of the library."""
    return ":" in name


@dataclasses.dataclass(frozen=True)
class TeacherSettings:
    """Teacher: a finished run, pretrained weights, or a network that is trained first."""

    checkpoint: str = option(
        "", "Workdir of a finished run to use as the teacher; empty: see weights."
    )
    weights: str = option(
        "",
        "File with weights for model: .safetensors, .pth or .pt; empty: train the teacher first.",
    )
    model: str = option(
        "wrn_16_2",
        "Network of weights, or network to train first, in <workdir>/teacher, with the run's seed (one "
        "like the student starts from the same weights); package:name of a module of your own.",
    )
    epochs: int = option(
        0,
        "Epochs of the teacher's training, which then has its own drop_epochs; 0: the student's epochs and "
        "drops.",
        between(0, EPOCHS),
    )
    drop_epochs: tuple = option(
        (), "Epochs at which the teacher's learning rate drops, with epochs.", EPOCH_LIST
    )
    train_examples: int = option(0, "Training images of the teacher; 0: all.", IMAGES)
    stochastic: bool = option(
        False, "Apply the teacher with deterministic=False and the student's random numbers."
    )
    image_size: int = option(
        0,
        "Height and width of the teacher's images, in pixels; 0: the student's.",
        between(0, 4096),
    )
    mean: tuple = option(
        (),
        "Mean per channel of the teacher's images, in 0..255; empty: that of its training, or data.mean if "
        "unknown.",
        MEANS,
    )
    std: tuple = option((), "Standard deviation per channel, in 0..255; empty: as mean.", STDS)


@dataclasses.dataclass(frozen=True)
class InitSettings:
    """Initialization of the student: pretrained weights and frozen modules."""

    weights: str = option(
        "",
        "Initial weights of the student: a .safetensors, .pth or .pt file, or the workdir of a run; empty: "
        "random.",
    )
    freeze: tuple = option(
        (),
        "Modules of the student that are not trained, such as ('conv1', 'stage1'). Their batch "
        "normalization uses its running statistics.",
        items(
            Rule(lambda value: isinstance(value, str) and bool(value), ""),
            "names of modules, such as ('conv1', 'stage1')",
        ),
    )
