"""An argument parser whose errors are one line."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that names the nearest flag, and ends with exit code 2."""

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
