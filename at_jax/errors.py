"""The one exception that a person can act on."""

from collections.abc import Iterable
from typing import Any

__all__ = ["UserError", "check_rank", "listed", "printable"]

_MOST_NAMES = 5


class UserError(ValueError):
    """A problem that the user can fix.

    The message names the subject, what was expected, what was found, and the fix. Command-line programs
    print it as one line and exit with code 2. Any other exception is a bug and keeps its traceback.
    """


def listed(names: Iterable[Any], empty: str = "none") -> str:
    """Join at most five names; a longer list ends with the number of names left out.

    >>> listed(["a", "b"]), listed(range(7)), listed([])
    ('a, b', '0, 1, 2, 3, 4 and 2 more', 'none')
    """
    names = [str(name) for name in names]
    shown = ", ".join(names[:_MOST_NAMES]) or empty
    return shown if len(names) <= _MOST_NAMES else f"{shown} and {len(names) - _MOST_NAMES} more"


def check_rank(function: str, rank: int, **arrays: Any) -> None:
    """Raise unless every array has the given rank.

    Args:
      function: name of the calling function, for the message.
      rank: expected number of axes.
      **arrays: argument name to array.

    Raises:
      UserError: naming the function, the argument, its shape and the expected rank.
    """
    for name, array in arrays.items():
        shape = getattr(array, "shape", None)
        if shape is None:
            raise UserError(
                f"{function}: {name} must be an array of rank {rank}, got {type(array).__name__}: "
                "convert it with jnp.asarray"
            )
        if len(shape) != rank:
            raise UserError(
                f"{function}: {name} must have rank {rank}, got shape {tuple(shape)}: "
                "reshape it, or index the batch with [None] if it is a single example"
            )


def printable(text: str) -> str:
    r"""Return a text that stays on its line: with its quotes and escapes if it has control characters.

    >>> print(printable("cat.png"), printable("two\nlines.png"))
    cat.png 'two\nlines.png'
    """
    return text if text.isprintable() else repr(text)
