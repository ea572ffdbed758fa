"""Config keys of the two networks of a run: the teacher, and the start of the student."""

import dataclasses

from at_jax.options import EPOCHS, Rule, between, epochs, items, option

__all__ = ["InitSettings", "TeacherSettings"]

_IMAGES, _DROPS = between(0, 2**31 - 1), epochs(EPOCHS)


@dataclasses.dataclass(frozen=True)
class TeacherSettings:
    """The teacher: a finished run, pretrained weights, or a network that is trained first."""

    checkpoint: str = option("", "Workdir of a finished run; empty: see weights.")
    weights: str = option(
        "",
        "Weights of the network below, a .safetensors, .pth or .pt file; empty: train the network first.",
    )
    model: str = option(
        "wrn_16_2",
        "Network of the weights, or of a teacher that is trained first, in <workdir>/teacher.",
    )
    epochs: int = option(
        0, "Epochs of its training; 0: the student's epochs and drops.", between(0, EPOCHS)
    )
    drop_epochs: tuple = option((), "Epochs at which its learning rate drops.", _DROPS)
    train_examples: int = option(0, "Training images of the teacher; 0: all.", _IMAGES)
    stochastic: bool = option(
        False, "Apply the teacher with deterministic=False and the student's random numbers."
    )
    image_size: int = option(
        0,
        "Height and width that the images are resized to for the teacher; 0: those of the student.",
        between(0, 4096),
    )
    mean: tuple = option((), "Mean per channel of the teacher's images, in 0..255; empty: data.mean.",
                         items(between(0, 255), "numbers from 0 to 255"))  # fmt: skip
    std: tuple = option((), "Standard deviation per channel, in 0..255; empty: data.std.",
                        items(between(0.1, 255), "numbers from 0.1 to 255"))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class InitSettings:
    """The start of the student: pretrained weights, and modules that stay as they are."""

    weights: str = option(
        "",
        "Weights that the student starts from: a .safetensors, .pth or .pt file, or the workdir of a run; "
        "empty: random.",
    )
    freeze: tuple = option(
        (),
        "Modules of the student that are not trained, such as ('conv1', 'stage1'). Their batch "
        "normalization uses its stored statistics.",
        items(
            Rule(lambda value: isinstance(value, str) and bool(value), ""),
            "names of modules, such as ('conv1', 'stage1')",
        ),
    )
