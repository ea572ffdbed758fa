"""Every config key: its default, its meaning and its rule. Options of the terms are fields of the terms.

Each section of a config is a frozen dataclass. ``at-jax train --help-config`` prints them. Those of the
images are in ``data``, those of teacher and initial weights in ``networks``; ``combinations`` checks values
that depend on each other.
"""

import dataclasses
from collections.abc import Mapping

from at_jax.distributed.devices import MAX_STEPS_PER_DISPATCH
from at_jax.options import (
    BETAS,
    EPOCH_LIST,
    EPOCHS,
    Rule,
    between,
    items,
    one_of,
    option,
    or_special,
)
from at_jax.terms import TERMS, Term
from at_jax.training import schedules
from at_jax.training.settings.data import SEEDS, DataSettings
from at_jax.training.settings.networks import InitSettings, TeacherSettings

__all__ = [
    "SECTIONS",
    "DataSettings",
    "InitSettings",
    "OptimizerSettings",
    "RuntimeSettings",
    "Settings",
    "TeacherSettings",
    "TermSettings",
    "TransferSettings",
    "key_fields",
    "term_options",
]

_EPOCHS, _EPOCH = between(1, EPOCHS), between(0, EPOCHS)
_FACTORS = between(1e-6, 1)
_TEXT = Rule(lambda value: isinstance(value, str), "a string")


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer and its learning rate."""

    name: str = option(
        "sgd",
        "Optimizer: SGD as in the authors' code, AdamW or LAMB.",
        one_of("sgd", "adamw", "lamb"),
    )
    learning_rate: float = option(0.1, "Peak learning rate.", between(0, 100))
    schedule: str = option("steps", "Learning-rate schedule.", one_of(*schedules.SCHEDULES))
    warmup_epochs: float = option(0.0, "Epochs of linear warm-up from 0.", _EPOCH)
    drop_epochs: tuple = option(
        (60, 120, 160),
        "Epochs at the start of which the rate is multiplied by drop_factor (schedule steps).",
        EPOCH_LIST,
    )
    drop_factor: float = option(0.2, "Factor of each drop (schedule steps).", _FACTORS)
    momentum: float = option(0.9, "Momentum (sgd).", between(0, 0.9999))
    nesterov: bool = option(False, "Nesterov momentum (sgd); not used by the authors.")
    weight_decay: float = option(
        5e-4,
        "Weight decay: added to the gradient (sgd), or decoupled (adamw, lamb).",
        between(0, 10),
    )
    decay_mask: str = option(
        "all",
        "Parameters with weight decay: all, as in the authors' code, or kernels.",
        one_of("all", "kernels"),
    )
    clip_norm: float = option(
        0.0,
        "Maximum global norm of the gradient; 0: no clipping.",
        or_special(0, between(1e-6, 1e6)),
    )


@dataclasses.dataclass(frozen=True)
class TransferSettings:
    """Settings of all transfer terms."""

    points: tuple = option(
        (),
        "Points to compare, 'student<-teacher', such as ('group3<-group3',); a point is a "
        "tap or the path of a submodule. Empty: all taps, in order.",
        items(_TEXT, "texts such as 'group3<-group3'"),
    )
    begin_epoch: int = option(0, "Epoch from which the terms are used, counted from 0.", _EPOCH)
    decay: str = option(
        "constant", "Decay of the weights beta during training.", one_of(*schedules.DECAYS)
    )
    decay_epochs: tuple = option(
        (),
        "Epochs at the start of which beta is multiplied by decay_factor (decay steps).",
        EPOCH_LIST,
    )
    decay_factor: float = option(0.1, "Factor of each drop (decay steps).", _FACTORS)


@dataclasses.dataclass(frozen=True)
class RuntimeSettings:
    """Execution of a run. These keys may change when a run is resumed.

    Changes of devices or steps_per_dispatch change the order of summation, and thus the last digits.
    """

    devices: int = option(
        0,
        "Devices of each process; 0: the largest number that divides the batch.",
        between(0, 4096),
    )
    steps_per_dispatch: int = option(
        0,
        "Updates per call of the compiled program; 0: 1 on CPU, 10 on GPU and TPU.",
        between(0, MAX_STEPS_PER_DISPATCH),
    )
    checkpoint_every: int = option(
        1, "Epochs between checkpoints; the best and the last epoch are always kept.", _EPOCHS
    )
    compilation_cache: str = option(
        "~/.cache/at_jax", "Directory of compiled programs kept between runs; empty: none."
    )
    huge_pages: bool = option(
        True,
        "Restart the process once with huge pages (Linux, CPU). Read from the command line, not from a "
        "config file; GLIBC_TUNABLES, if set, takes precedence.",
    )
    tensorboard: bool = option(True, "Write TensorBoard events.")
    figures: bool = option(
        True, "Draw attention.png, curves.png and report.html when the run ends."
    )


@dataclasses.dataclass(frozen=True)
class TermSettings:
    """One term of the loss: the config section of its name.

    Attributes:
      term: with its options.
      beta: its weight; None for a term that replaces the cross-entropy.
      begin_epoch: epoch from which it is used.
    """

    term: Term
    beta: float | None
    begin_epoch: int


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of a run, checked. Each section is a dataclass."""

    student: str = option("wrn_16_1", "Network to train; package:name of a module of your own.")
    method: str = option("at", f"none, {', '.join(TERMS)}, or several joined by '+' as in at+kd.")
    compare: tuple = option(
        (),
        "Other methods to train the same student with in the same program, in <workdir>/<method>.",
        items(_TEXT, "methods, such as none"),
    )
    seed: int = option(0, "Random seed (initialization, data order, augmentation).", SEEDS)
    dtype: str = option(
        "float32",
        "Data type of the networks' computation. Parameters, statistics and losses are float32.",
        one_of("float32", "bfloat16"),
    )
    epochs: int = option(
        200, "Passes over the training images, or over data.epoch_examples images.", _EPOCHS
    )
    batch_size: int = option(128, "Images per update, over all devices.", between(1, 2**20))
    accumulation: int = option(1, "Micro-batches per update, to save memory.", between(1, 2**20))
    teacher: TeacherSettings = dataclasses.field(default_factory=TeacherSettings)
    init: InitSettings = dataclasses.field(default_factory=InitSettings)
    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    optimizer: OptimizerSettings = dataclasses.field(default_factory=OptimizerSettings)
    transfer: TransferSettings = dataclasses.field(default_factory=TransferSettings)
    runtime: RuntimeSettings = dataclasses.field(default_factory=RuntimeSettings)
    terms: Mapping[str, TermSettings] = dataclasses.field(default_factory=dict)


SECTIONS = {
    "teacher": TeacherSettings,
    "init": InitSettings,
    "data": DataSettings,
    "optimizer": OptimizerSettings,
    "transfer": TransferSettings,
    "runtime": RuntimeSettings,
}


def key_fields() -> dict[str, dict[str, dataclasses.Field]]:
    """Fields of all keys of a config by section and name; the top level has the name ``""``.

    >>> key_fields()["optimizer"]["learning_rate"].default
    0.1
    """
    top = [f for f in dataclasses.fields(Settings) if f.default is not dataclasses.MISSING]
    sections = {"": top, **{name: dataclasses.fields(each) for name, each in SECTIONS.items()}}
    return {
        **{name: {field.name: field for field in each} for name, each in sections.items()},
        **{name: term_options(term) for name, term in TERMS.items()},
    }


def term_options(term: type[Term]) -> dict[str, dataclasses.Field]:
    """Keys of a term's config section: its weight, its first epoch, and its own options."""
    own = {field.name: field for field in dataclasses.fields(term)}
    weight = {}
    if term.beta is not None:
        weight["beta"] = option(term.beta, f"Weight of {term.title}.", BETAS)
    begin = option(
        -1, "Epoch from which the term is used; -1: transfer.begin_epoch.", between(-1, EPOCHS)
    )
    return {**weight, "begin_epoch": begin, **own}
