"""Outcome of one kind of check."""

from typing import NamedTuple

__all__ = ["Row"]


class Row(NamedTuple):
    """A row of the table.

    Attributes:
      check: what was done, such as "SIGKILL at a random moment".
      tried: number of cases.
      failures: one line for each case that failed: what was done, what happened.
    """

    check: str
    tried: int
    failures: tuple[str, ...] = ()
