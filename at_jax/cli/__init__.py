"""The command ``at-jax``, also ``python -m at_jax``. Imports little: signals come first."""

import sys

from at_jax import output, signals

__all__ = ["main"]


def main(argv: list[str] | None = None, name: str = "") -> int:
    """Run a command line.

    Args:
      argv: the subcommand and its arguments; None for those of the process, which then ends on a signal
        with one line, may lose its output, and may restart itself once with huge pages.
      name: the subcommand, for a program that has only one.

    Returns:
      The exit code: 2 for invalid input, after one line with the fix.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if not name:
        name, given = (given[0], given[1:]) if given else ("", [])
    if argv is None:
        output.secure()
        signals.watch(resumes=name in ("train", "tables"))
    from at_jax.cli import commands

    return commands.run_process(name, given) if argv is None else commands.run(name, given)
