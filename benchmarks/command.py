"""Command line of the benchmarks. A problem with the flags is printed as one line, with exit code 2."""

import sys
from collections.abc import Callable

from absl import app, flags, logging

from at_jax.errors import UserError

__all__ = ["run"]


def run(main: Callable[[], None]) -> None:
    """Parse the flags and run a benchmark.

    Args:
      main: reads the flags; a UserError that it raises is printed without its traceback.
    """

    def guarded(arguments: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)
        try:
            if len(arguments) > 1:
                raise UserError(
                    f"unknown argument {arguments[1]!r}: options begin with --, see --help"
                )
            main()
        except UserError as error:
            _fail(error)

    app.run(guarded, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _fail(error)
        raise  # not reached


def _fail(error: Exception) -> None:
    print("error:", " ".join(str(error).split()), file=sys.stderr)
    sys.exit(2)
