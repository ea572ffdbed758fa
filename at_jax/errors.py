"""Exception for problems that the user can fix, and parts of its messages."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = [
    "UserError", "listed", "naming", "one_line", "printable", "replaced", "replacing", "traceable",
]  # fmt: skip

_MOST_NAMES = 5


class UserError(ValueError):
    """A problem that the user can fix.

    The message names the subject, the expected value, the value found, and the fix. Command-line programs
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


def one_line(error: object, most: int = 200) -> str:
    """Format a message on one line of at most ``most`` characters.

    >>> one_line(ValueError("several   words"), most=9)
    'several w'
    """
    return " ".join(str(error).split())[:most]


@contextlib.contextmanager
def traceable(subject: str) -> Iterator[None]:
    """Raise UserError if code of the user needs the value of a traced array.

    Args:
      subject: name of the code, for the message. The traceback of the cause shows its line.
    """
    import jax  # --help starts without it

    known = jax.errors
    try:
        yield
    except (
        known.ConcretizationTypeError, known.TracerArrayConversionError,
        known.TracerIntegerConversionError, known.NonConcreteBooleanIndexError,
    ) as error:  # fmt: skip
        raise UserError(
            f"{subject} must be traceable by JAX, got {type(error).__name__}: use jax.numpy instead of "
            "numpy, and jnp.where or jax.lax.cond instead of if"
        ) from error


@contextlib.contextmanager
def replacing(words: Iterable[tuple[str, str]]) -> Iterator[None]:
    """Replace words in the message of a UserError, such as flags of another command.

    Args:
      words: pairs (old, new), replaced in this order.
    """
    try:
        yield
    except UserError as error:
        raise UserError(replaced(str(error), words)) from error


def replaced(text: str, words: Iterable[tuple[str, str]]) -> str:
    """Replace words in a text, pairs (old, new), in this order.

    >>> replaced("set --a", [("--a", "--b"), ("set", "use")])
    'use --b'
    """
    for old, new in words:
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def naming(key: str, value: object) -> Iterator[None]:
    """Add a config key and its value to a UserError of the context that does not name the key.

    Args:
      key: of the config.
      value: of the key.
    """
    try:
        yield
    except UserError as error:
        if key in str(error):
            raise
        raise UserError(f"{key}={value}: {error}") from error


def printable(text: str) -> str:
    r"""Return a one-line form of a text: quoted and escaped if it contains control characters.

    >>> print(printable("cat.png"), printable("two\nlines.png"))
    cat.png 'two\nlines.png'
    """
    return text if text.isprintable() else repr(text)
