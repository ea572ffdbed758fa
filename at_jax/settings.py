"""What a config may say: the range of every value, and the config of a teacher."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections

from at_jax import losses, methods, parallel, processes, schedules
from at_jax.run_directory import flatten


def _at_least(bound: float) -> tuple[Callable[[float], bool], str]:
    return lambda value: bound <= value < math.inf, f"at least {bound}"


def _above(bound: float) -> tuple[Callable[[float], bool], str]:
    return lambda value: bound < value < math.inf, f"above {bound}"


def _one_of(*known: str) -> tuple[Callable[[str], bool], str]:
    return lambda value: value in known, f"one of {', '.join(known)}"


_INCREASING = (
    lambda epochs: (
        all(isinstance(epoch, int) for epoch in epochs)
        and all(a < b for a, b in zip((0, *epochs), epochs, strict=False))
    ),
    "increasing whole epochs, from 1 on",
)


def _numbers_above(bound: float) -> tuple[Callable[[Any], bool], str]:
    return (
        lambda values: all(isinstance(v, int | float) and bound < v < math.inf for v in values),
        f"numbers above {bound}",
    )


# Key -> (is the value right, what is expected). Types are ml_collections' business; names of networks,
# data sources and transfer points are checked by those who know them.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "dtype": _one_of("float32", "bfloat16"),
    "seed": (lambda value: 0 <= value < 2**32, "from 0 to 2**32 - 1"),
    "epochs": _at_least(1),
    "batch_size": _at_least(1),
    "accumulation": _at_least(1),
    "teacher.epochs": _at_least(0),
    "teacher.drop_epochs": _INCREASING,
    "optimizer.learning_rate": _at_least(0),
    "optimizer.momentum": (lambda value: 0 <= value < 1, "from 0 to below 1"),
    "optimizer.weight_decay": _at_least(0),
    "optimizer.drop_epochs": _INCREASING,
    "optimizer.drop_factor": _above(0),
    "kd.temperature": _above(0),
    "kd.alpha": (lambda value: 0 <= value <= 1, "from 0 to 1"),
    "at.beta": _at_least(0),
    "at.kind": _one_of(*losses.KINDS),
    "at.p": _at_least(1),
    "at.convention": _one_of(*losses.CONVENTIONS),
    "f_actt.beta": _at_least(0),
    "gradient_at.beta": _at_least(0),
    "flip_symmetry.beta": _at_least(0),
    "min_l2.beta": _at_least(0),
    "transfer.decay": _one_of(*schedules.DECAYS),
    "transfer.decay_epochs": _INCREASING,
    "transfer.decay_factor": _above(0),
    "data.image_size": _at_least(0),
    "data.memory_limit_mb": _at_least(0),
    "data.pad": _at_least(0),
    "data.mean": _numbers_above(-math.inf),
    "data.std": _numbers_above(0),
    "data.train_examples": _at_least(0),
    "data.validation_examples": _at_least(0),
    "data.split_seed": _at_least(0),
    "data.order_seed": (lambda value: -1 <= value < 2**32, "from -1 to 2**32 - 1"),
    "teacher.train_examples": _at_least(0),
    "transfer.points": (
        lambda values: all(isinstance(value, str) for value in values),
        "texts such as 'group3<-group3'",
    ),
    "runtime.devices": _at_least(0),
    "runtime.steps_per_dispatch": (
        lambda value: 0 <= value <= parallel.MAX_STEPS_PER_DISPATCH,
        f"from 0 (automatic) to {parallel.MAX_STEPS_PER_DISPATCH}",
    ),
    "runtime.checkpoint_every": _at_least(1),
}


# Where a machine keeps its files is its own business.
_OF_A_MACHINE = ("data.data_dir", "runtime.compilation_cache")


def check(config: ml_collections.ConfigDict) -> None:
    """Check every value that can be checked alone, and that all processes have the same.

    Raises:
      ValueError: naming the key, what is expected and what it is.
    """
    values = flatten(config.to_dict())
    processes.check_same({k: v for k, v in values.items() if k not in _OF_A_MACHINE})
    for key, (is_right, expected) in _RULES.items():
        if not is_right(values[key]):
            raise ValueError(
                f"{key} must be {expected}, got {values[key]!r}: change it with --config.{key}=..."
            )
    if len(config.data.mean) != len(config.data.std):
        raise ValueError(
            f"data.mean and data.std must have one number a channel each, got {config.data.mean} and "
            f"{config.data.std}: set both, or neither"
        )
    if config.transfer.decay == "steps" and not config.transfer.decay_epochs:
        raise ValueError(
            "transfer.decay='steps' needs the epochs of its steps, got none: set "
            '--config.transfer.decay_epochs="(60,120)"'
        )
    if not methods.needs_teacher(config.method) and config.teacher.checkpoint:
        raise ValueError(
            f"method {config.method!r} uses no teacher, got teacher.checkpoint="
            f"{config.teacher.checkpoint!r}: leave it out, or choose a method such as at"
        )


def teacher_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config by which the teacher of a config is trained: its network, method none."""
    result = ml_collections.ConfigDict(config.to_dict())
    result.student, result.method = config.teacher.model, "none"
    result.data.train_examples = config.teacher.train_examples
    if config.teacher.epochs:
        result.epochs = config.teacher.epochs
        result.optimizer.drop_epochs = config.teacher.drop_epochs
    return result


def order_seed(config: ml_collections.ConfigDict) -> int:
    """The seed of the order of images and of their augmentation.

    >>> config = ml_collections.ConfigDict({"seed": 3, "data": {"order_seed": -1}})
    >>> order_seed(config)
    3
    """
    return config.seed if config.data.order_seed < 0 else config.data.order_seed


# What students of one program may differ in, by the first name of the key.
_MAY_DIFFER_TOGETHER = {
    "student", "seed", "method", "optimizer", "kd", "at", "f_actt", "gradient_at", "flip_symmetry",
    "min_l2", "transfer", "teacher",
}  # fmt: skip


def check_together(configs: Sequence[ml_collections.ConfigDict]) -> None:
    """Raise unless the students of some configs can be trained in one program.

    Args:
      configs: one a student.

    Raises:
      ValueError: naming the key that stands in the way.
    """
    if not configs:
        raise ValueError(
            "training together needs students, got none: pass a config and a workdir each"
        )
    first = flatten(configs[0].to_dict())
    for config in configs[1:]:
        other = flatten(config.to_dict())
        for key in first:
            if key.split(".")[0] not in _MAY_DIFFER_TOGETHER and first[key] != other.get(key):
                raise ValueError(
                    f"students that are trained together must have one {key}, got {first[key]!r} and "
                    f"{other.get(key)!r}: train them apart, or set it alike"
                )
    if len(orders := {order_seed(config) for config in configs}) > 1:
        raise ValueError(
            "students that are trained together must see one order of images, got data.order_seed=-1 and "
            f"the seeds {', '.join(map(str, sorted(orders)))}: set data.order_seed=0"
        )
    teachers = {c.teacher.checkpoint for c in configs if methods.needs_teacher(c.method)}
    if len(teachers) > 1 or "" in teachers:
        raise ValueError(
            "students that are trained together must have one finished teacher, got teacher.checkpoint="
            f"{' and '.join(map(repr, sorted(teachers)))}: train the teacher first and name its workdir"
        )
