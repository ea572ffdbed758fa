"""An argument parser whose errors are one line."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from at_jax.errors import unknown_flag

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """Parser of a command. It names the nearest flag, and ends with exit code 2.

    Args:
      command: name of the subcommand.
      description: of the command, one sentence.
      examples: lines of the help.
      on_run: add the flags of a command on a run.
    """

    def __init__(self, command: str, description: str, examples: str, *, on_run: bool = True):
        super().__init__(
            prog=f"at-jax {command}",
            description=description,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if on_run:
            add = self.add_argument
            add("--workdir", required=True, metavar="RUN", help="directory of the run")
            add("--module", metavar="PACKAGE:NAME", help="user-defined module that the run trained")
            add("--json", action="store_true", help="print JSON")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse the arguments after the name of the command; an unknown one is an error."""
        # Before argparse, which would report that the flag is missing, not that it is misspelled.
        if message := unknown_flag(argv, self._option_string_actions):
            self.error(message)
        return self.parse_args(argv)

    def error(self, message: str) -> NoReturn:
        """Print one line and end the process."""
        print(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)
