"""The subcommands of ``at-jax``. Each is imported when it is used."""

import difflib
import importlib
import sys
import warnings
from collections.abc import Sequence
from typing import NamedTuple

from at_jax import extras, output
from at_jax.distributed import huge_pages
from at_jax.version import __version__

__all__ = ["run", "run_process"]


class _Command(NamedTuple):
    module: str
    summary: str
    large: bool = False  # its arrays: see huge_pages
    prints: bool = False  # its result, which must not be lost
    extra: str = ""  # that it needs, where it is not that of the missing package


_COMMANDS = {
    "train": _Command(
        "at_jax.cli.train", "train a student, and its teacher if there is none", large=True
    ),
    "evaluate": _Command(
        "at_jax.cli.evaluate", "evaluate a run on its test set", large=True, prints=True
    ),
    "predict": _Command(
        "at_jax.cli.predict", "classify image files with the student of a run", prints=True
    ),
    "figures": _Command(
        "at_jax.figures.command", "draw attention maps, input gradients and curves"
    ),
    "tables": _Command(
        "at_jax.tables.command",
        "compare methods over seeds: the paper's tables, or your own",
        large=True,
    ),
    "weights": _Command(
        "at_jax.cli.weights", "convert PyTorch weights to a run, or export the network of a run"
    ),
    "data": _Command("at_jax.data.prepare", "download and prepare a data set", extra="data"),
}
_HELP = """usage: at-jax COMMAND ...

Attention transfer and knowledge distillation in JAX and Flax.

commands:
{commands}

at-jax COMMAND --help describes a command; at-jax --version prints the version.
"""


def run_process(name: str, rest: Sequence[str]) -> int:
    """Run a subcommand of this process, which may restart itself once with huge pages.

    Returns:
      The exit code; 1 if the output of a command that only prints could not be written.
    """
    command = _COMMANDS.get(name)
    if command and command.large:
        huge_pages.restart()
    code = run(name, rest)
    if not code and command and command.prints and (reason := output.write_error()):
        print(f"error: the output could not be written: {reason}", file=sys.stderr)
        return 1
    return code


def run(name: str, rest: Sequence[str]) -> int:
    """Run a subcommand; see :func:`at_jax.cli.main`."""
    if name in ("", "-h", "--help", "help"):
        lines = [f"  {name:<10}{command.summary}" for name, command in _COMMANDS.items()]
        print(_HELP.format(commands="\n".join(lines)), end="")
        return 0 if name else 2
    if name == "--version":
        print(f"at_jax {__version__}")
        return 0
    if name not in _COMMANDS:
        close = difflib.get_close_matches(name, _COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(_COMMANDS)}"
        print(f"error: at-jax has no command {name!r}: {hint}", file=sys.stderr)
        return 2
    command = _COMMANDS[name]
    original = warnings.formatwarning
    warnings.formatwarning = _one_line
    try:
        module = importlib.import_module(command.module)
        return module.main(rest)
    except ImportError as error:
        line = extras.missing(error, f"at-jax {name}", command.extra)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2
    finally:
        warnings.formatwarning = original


def _one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Format a warning of the library for people; others keep their place in the code."""
    if category is UserWarning:
        return f"warning: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"
