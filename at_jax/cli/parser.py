"""Parser of a command with examples in its help."""

import argparse

from at_jax.parser import Parser

__all__ = ["CommandParser"]


class CommandParser(Parser):
    """Parser of a command, with examples in its help.

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
