"""An argument parser whose errors are one line."""

import argparse
import difflib
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """Parser of a command or of its subcommands. It names the nearest flag, and ends with exit code 2."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments; an unknown flag is an error, unless a subcommand has it."""
        # Before argparse, which would report that the flag is missing, not that it is misspelled. argparse
        # calls this method, not parse_args, for the parser of a subcommand.
        has_subcommands = self._subparsers is not None
        if not has_subcommands and (message := _unknown_flag(args, self._option_string_actions)):
            self.error(message)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print one line and end the process."""
        print(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def _unknown_flag(arguments: Iterable[str], known: Iterable[str]) -> str | None:
    """Describe the first unknown flag of a command line, with the nearest known flag.

    Args:
      arguments: of the command line.
      known: flags, such as ``--workdir``. An abbreviation of one is accepted.

    >>> _unknown_flag(["--wrokdir=x"], ["--workdir", "--json"])
    "unknown argument '--wrokdir=x': did you mean --workdir?"
    """
    known = list(known)
    takes_runs = "--workdir" not in known
    for argument in arguments:
        name = argument.partition("=")[0]
        if argument == "--":
            return None
        if name.startswith("--") and not any(flag.startswith(name) for flag in known):
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "leave it out"
            if name == "--workdir" and takes_runs:
                hint = "pass the run without this flag"
            return f"unknown argument {argument!r}: {hint}"
    return None
