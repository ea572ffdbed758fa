"""Parsing of the flag ``--config`` and its overrides, with errors of one line."""

import ast
import difflib
import re
from typing import Any

from absl import flags

from at_jax.errors import UserError
from at_jax.training import config_files
from at_jax.training.key_names import main_key, nearest

__all__ = ["explain", "value_of", "with_config_first"]

_DEFAULT = "digits"


def value_of(argv: list[str]) -> str:
    """Value of the last ``--config=``, which is the one that counts.

    >>> value_of(["--config=digits", "--config=cifar10:method=at"])
    'cifar10:method=at'
    """
    return next(a for a in reversed(argv) if a.startswith("--config=")).removeprefix("--config=")


def with_config_first(argv: list[str]) -> list[str]:
    """Write every --config flag as --config...=VALUE, and --config itself, or its default, first.

    The flag has no default of its own: overrides of a default file are parsed where errors escape. The
    name of a config becomes the path of its file.

    Raises:
      UserError: if there is no such config.
    """
    program, *given = argv
    config, others = f"--config={_DEFAULT}", []
    while given:
        flag = re.sub(r"^-(?=config\b)", "--", given.pop(0))  # absl accepts one dash, too
        has_value = given and not given[0].startswith("-")
        if re.fullmatch(r"--config(\.[\w.]+)?", flag) and has_value:
            flag = f"{flag}={given.pop(0)}"
        if flag.startswith("--config="):
            config = flag
        else:
            others.append(flag)
    name, colon, parts = config.removeprefix("--config=").partition(":")
    return [program, f"--config={config_files.find(name)}{colon}{parts}", *others]


def explain(error: Exception, argv: list[str], help_text: str) -> str:
    """Describe a bad flag in one line: the flag, what is expected, and the nearest known name.

    Args:
      error: of the parsing.
      argv: the command line.
      help_text: of the command, which names its flags.
    """
    if isinstance(error, UserError):
        return str(error)
    message = " ".join(str(error).split())
    if wrong := _wrong_value(argv):
        return wrong
    if isinstance(error, flags.UnrecognizedFlagError):
        return _unknown_flag(error.flagname, help_text)
    if isinstance(error, flags.IllegalFlagValueError) and "--config" not in message:
        return message
    try:
        config_files.load_flag(value_of(argv))
    except UserError as of_file:
        return str(of_file)
    if isinstance(error, AttributeError | KeyError):
        return _unknown_key(argv) or message
    return message


def _wrong_value(argv: list[str]) -> str:
    """Message about the first --config.KEY=VALUE whose value is of another type; empty if there is none."""
    defaults = _defaults()
    for flag, equals, text in (a.partition("=") for a in argv if a.startswith("--config.")):
        key = flag.removeprefix("--config.")
        if inner := [each for each in defaults if each.startswith(f"{key}.")]:
            own = main_key(key, inner)
            return (
                f"{flag} is a section of keys, got {text!r:.200}: set one, such as --config.{own}="
            )
        if key not in defaults:
            continue
        default = defaults[key]
        kind, read = _KINDS[type(default)]
        text = text if equals else {bool: "True"}.get(type(default), "")
        try:
            read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            shown = f"'({', '.join(map(str, default))})'" if isinstance(default, list) else default
            return f"{key} must be {kind}, got {text!r:.200}: set it with {flag}={shown}"
    return ""


def _boolean(text: str) -> None:
    if text.lower() not in ("true", "t", "1", "false", "f", "0"):
        raise ValueError(text)


def _tuple(text: str) -> None:
    if not isinstance(ast.literal_eval(text), tuple | list):
        raise ValueError(text)


# Type of a key's default: what is expected, and a function that raises for another text.
_KINDS: dict[type, tuple[str, Any]] = {
    bool: ("True or False", _boolean),
    int: ("a whole number", int),
    float: ("a number", float),
    list: ("a tuple", _tuple),
    str: ("a string", str),
}


def _unknown_key(argv: list[str]) -> str:
    """Message about the first --config.KEY that does not exist; empty if all do."""
    known = _defaults()
    for flag in (a.split("=")[0] for a in argv if a.startswith("--config.")):
        key = flag.removeprefix("--config.")
        if key not in known:
            close = nearest(key, known)
            hint = f"did you mean --config.{close}?" if close else "--help-config lists them"
            return f"{flag}: there is no such key; {hint}"
    return ""


def _unknown_flag(name: str, help_text: str) -> str:
    """Message about an unknown flag, which may be a key of the config, or its last part."""
    known = _defaults()
    keys = [key for key in known if name in (key, key.split(".")[-1])]
    if inner := [key for key in known if key.startswith(f"{name}.")]:  # a section
        keys = keys or [main_key(name, inner)]
    options = [flag for flag in flags.FLAGS if f"--{flag}" in help_text]
    found = nearest(name, known)
    close = [f"config.{key}" for key in keys] or [
        *difflib.get_close_matches(name, options, n=1),
        *([f"config.{found}"] if found else []),
    ]
    hint = f"did you mean --{close[0]}?" if close else "see --help"
    if name == "resume":
        hint = "leave it out: a run resumes when its command is run again"
    return f"unknown flag --{name}: {hint}"


def _defaults() -> dict[str, Any]:
    """Dotted keys to default values."""
    from at_jax.training.config import default_values  # imports jax: not for --help

    return default_values()
