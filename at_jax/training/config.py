"""Config: defaults, conversion to settings, and checks.

Config files and the command line modify a ``ConfigDict``. :func:`settings_of` converts it once to frozen
dataclasses; every function below receives the settings of its own section.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from at_jax import options, terms
from at_jax.errors import UserError, listed
from at_jax.terms import TERMS, Term
from at_jax.training.key_names import nearest
from at_jax.training.settings import (
    SECTIONS,
    Settings,
    TeacherSettings,
    TermSettings,
    combinations,
    key_fields,
)

__all__ = [
    "ConfigDict",
    "check_together",
    "comparison_config",
    "default_config",
    "default_values",
    "flatten",
    "help_text",
    "order_seed",
    "settings_of",
    "teacher_config",
]


def default_config() -> ConfigDict:
    """Build a config with every key at its default, the paper's CIFAR-10 recipe.

    >>> default_config().optimizer.drop_epochs
    (60, 120, 160)
    """
    defaults = {
        section: {key: field.default for key, field in fields.items()}
        for section, fields in key_fields().items()
    }
    return ConfigDict({**defaults.pop(""), **defaults})


def default_values() -> dict[str, Any]:
    """Dotted keys of :func:`default_config` to their values, as :func:`flatten` gives them.

    >>> default_values()["optimizer.drop_epochs"]
    [60, 120, 160]
    """
    return flatten(default_config().to_dict())


def settings_of(config: ConfigDict) -> Settings:
    """Convert a config to settings, and check every value, separately and together with others.

    Args:
      config: every key of :func:`default_config`.

    Returns:
      The settings.

    Raises:
      UserError: naming the key, the rule and the value.
    """
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"config must be an ml_collections.ConfigDict, got {type(config).__name__}: take "
            "at_jax.training.config.default_config() and change its values"
        )
    values = config.to_dict()
    _check_keys(values)
    for section, fields in key_fields().items():
        given = values[section] if section else values
        for key, field in fields.items():
            options.check_value(f"{section}.{key}" if section else key, field, given[key])
    top = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    sections = {name: section(**values[name]) for name, section in SECTIONS.items()}
    built = {
        name: _term_settings(term, values[name], values["transfer"]["begin_epoch"])
        for name, term in TERMS.items()
    }
    settings = Settings(**top, **sections, terms=built)
    combinations.check(settings)
    return settings


def _term_settings(term: type[Term], values: dict[str, Any], first_epoch: int) -> TermSettings:
    beta, begin = values.pop("beta", None), values.pop("begin_epoch")
    return TermSettings(term(**values), beta, first_epoch if begin < 0 else begin)


def _check_keys(values: Mapping[str, Any]) -> None:
    given, known = flatten(values).keys(), default_values().keys()
    if missing := sorted(known - given):
        raise UserError(
            f"the config lacks {listed(missing)}: start from at_jax.training.config.default_config()"
        )
    if unknown := sorted(given - known):
        close = nearest(unknown[0], known)
        hint = f"did you mean {close}?" if close else "see at-jax train --help-config"
        raise UserError(f"the config has an unknown key {unknown[0]!r}: {hint}")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested mapping to dotted keys; tuples become lists, as in JSON.

    >>> flatten({"a": {"b": (1, 2)}, "c": 3})
    {'a.b': [1, 2], 'c': 3}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def teacher_config(config: ConfigDict) -> ConfigDict:
    """Config of the run that trains the teacher of a config: its network, method none."""
    result = ConfigDict(config.to_dict())
    result.student, result.method, result.compare = config.teacher.model, "none", ()
    result.data.train_examples, result.data.epoch_examples = config.teacher.train_examples, 0
    result.init.weights, result.init.freeze = "", ()
    if config.teacher.epochs:
        result.epochs = config.teacher.epochs
        result.optimizer.drop_epochs = config.teacher.drop_epochs
    return result


def comparison_config(config: ConfigDict, method: str) -> ConfigDict:
    """Config of a run that a config compares itself with: another method, and no figures of its own."""
    result = ConfigDict(config.to_dict())
    result.method, result.compare, result.runtime.figures = method, (), False
    if not terms.needs_teacher(method):
        result.teacher.checkpoint = result.teacher.weights = ""
    return result


def order_seed(settings: Settings) -> int:
    """Seed of data order and augmentation.

    >>> order_seed(Settings(seed=3))
    3
    """
    return settings.seed if settings.data.order_seed < 0 else settings.data.order_seed


# Sections and keys in which students of one program may differ, in addition to the terms' sections.
_MAY_DIFFER = {"student", "seed", "method", "optimizer", "transfer", "teacher", "init"}


def check_together(configs: Sequence[ConfigDict]) -> None:
    """Raise unless the students of several configs can be trained in one program.

    Args:
      configs: one for each student.

    Raises:
      UserError: naming the key that differs.
    """
    if not configs:
        raise UserError(
            "train_together needs students, got none: pass a config and a workdir for each"
        )
    settings = [settings_of(config) for config in configs]
    flat = [flatten(config.to_dict()) for config in configs]
    for key, value in flat[0].items():
        if key.split(".")[0] in _MAY_DIFFER | TERMS.keys():
            continue
        for other in flat[1:]:
            if other.get(key) != value:
                raise UserError(
                    f"students of one program must have the same {key}, got {value!r} and "
                    f"{other.get(key)!r}: train them separately, or set the same value"
                )
    if compare := next((each.compare for each in settings if each.compare), ()):
        raise UserError(
            f"students of one program cannot have comparison runs, got compare={tuple(compare)!r}: set "
            "compare=(), and pass these runs too"
        )
    if len(seeds := sorted({order_seed(each) for each in settings})) > 1:
        raise UserError(
            "students of one program must see the same order of images, got data.order_seed=-1 and the "
            f"seeds {listed(seeds)}: set data.order_seed=0"
        )
    _check_teachers([each.teacher for each in settings if terms.needs_teacher(each.method)])


def _check_teachers(with_teacher: Sequence[TeacherSettings]) -> None:
    """Raise UserError unless students of one program have the same teacher."""
    checkpoints = {each.checkpoint for each in with_teacher}
    pretrained = [_pretrained(each) for each in with_teacher]
    if len(set(pretrained)) > 1:
        raise UserError(
            "students of one program must have the same teacher.weights, model, image_size, mean and std, "
            f"got {listed(map(repr, pretrained))}: set the same values"
        )
    if len(checkpoints) > 1 or ("" in checkpoints and not with_teacher[0].weights):
        raise UserError(
            "students of one program must have the same finished teacher, got teacher.checkpoint="
            f"{listed(map(repr, sorted(checkpoints)))}: train the teacher first and pass its workdir"
        )
    if len({each.stochastic for each in with_teacher}) > 1:
        raise UserError(
            "students of one program must have the same teacher.stochastic, got True and False: train "
            "them separately, or set the same value"
        )


def _pretrained(teacher: TeacherSettings) -> tuple[Any, ...]:
    """Other properties that distinguish an existing teacher."""
    images = (teacher.image_size, tuple(teacher.mean), tuple(teacher.std))
    return (teacher.weights, teacher.model if teacher.weights else "", *images)


def help_text() -> str:
    """Format the text of ``--help-config``: every key with its type, default, rule and meaning."""
    lines = ["Keys of a config, set with --config.KEY=VALUE:"]
    for section, fields in key_fields().items():
        prefix = f"  {section}." if section else "  "
        lines += ["", *(f"{prefix}{key}: {_described(field)}" for key, field in fields.items())]
    return "\n".join(lines) + "\n"


def _described(field: dataclasses.Field) -> str:
    """Type, rule, default and meaning; a field of a user's term may have no rule and no meaning."""
    rule, default = field.metadata.get("rule"), field.default
    expected = f", {rule.text}" if rule else ""
    kind = f"{type(default).__name__}{expected}; default {default!r}"
    meaning = field.metadata.get("meaning")
    return f"{kind}\n      {meaning}" if meaning else kind
