"""An argument parser whose errors are one line."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """Parser of a command on a run. It names the nearest flag, and ends with exit code 2.

    Args:
      command: name of the subcommand.
      description: of the command, one sentence.
      examples: lines of the help.
    """

    def __init__(self, command: str, description: str, examples: str):
        super().__init__(
            prog=f"at-jax {command}",
            description=description,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add = self.add_argument
        add("--workdir", required=True, metavar="RUN", help="directory of the run")
        add("--module", metavar="PACKAGE:NAME", help="user-defined module that the run trained")
        add("--json", action="store_true", help="print JSON")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse the arguments after the name of the command; an unknown one is an error."""
        options, unknown = self.parse_known_args(argv)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            close = difflib.get_close_matches(unknown[0].split("=")[0], flags, n=1)
            hint = f"did you mean {close[0]}" if close else "leave it out"
            self.error(f"unknown argument {unknown[0]!r}: {hint}")
        return options

    def error(self, message: str) -> NoReturn:
        """Print one line and end the process."""
        print(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)
