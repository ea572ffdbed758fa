"""Exception for problems that the user can fix, and checks that raise it."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = [
    "UserError", "check_array", "check_equal", "check_rank", "check_scalar", "listed", "naming",
    "printable", "replaced", "replacing", "traceable", "unknown_flag",
]  # fmt: skip

_MOST_NAMES = 5
_SINGLE = ", or index the batch with [None] if it is a single example"
_STACKED = ", or call it once for each layer if nn.scan or nn.vmap stacked them"
# Advice by the expected rank, and how many axes there are in addition.
_RANK_FIXES = {
    **{(rank, -1): _SINGLE for rank in (2, 3, 4)},
    **{(rank, 1): _STACKED for rank in (3, 4)},
}


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


def unknown_flag(arguments: Iterable[str], known: Iterable[str]) -> str | None:
    """Describe the first unknown flag of a command line, with the nearest known flag.

    Args:
      arguments: of the command line.
      known: flags, such as ``--workdir``. An abbreviation of one is accepted.

    >>> unknown_flag(["--wrokdir=x"], ["--workdir", "--json"])
    "unknown argument '--wrokdir=x': did you mean --workdir?"
    """
    known = list(known)
    for argument in arguments:
        name = argument.partition("=")[0]
        if argument == "--":
            return None
        if name.startswith("--") and not any(flag.startswith(name) for flag in known):
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "leave it out"
            return f"unknown argument {argument!r}: {hint}"
    return None


def check_array(function: str, **arrays: Any) -> None:
    """Raise unless every argument is an array of examples, with at least one number in each example.

    Args:
      function: name of the calling function, for the message.
      **arrays: argument name to array.

    Raises:
      UserError: naming the function, the argument, and its type or shape.
    """
    for name, array in arrays.items():
        shape = getattr(array, "shape", None)
        if not shape:
            got = "a scalar" if shape == () else type(array).__name__
            raise UserError(
                f"{function}: {name} must be an array (B, ...), got {got}: convert or reshape it"
            )
        _check_not_foreign(function, name, array)
        _check_not_empty(function, name, shape)


def _check_not_foreign(function: str, name: str, array: Any) -> None:
    """Raise for an array of another library, such as a tensor of PyTorch, whose dtype is its own."""
    import numpy as np  # --help starts without it

    if not isinstance(getattr(array, "dtype", None), np.dtype):
        kind = f"{type(array).__module__}.{type(array).__name__}"
        raise UserError(
            f"{function}: {name} must be an array of JAX or NumPy, got {kind}: convert it, for example "
            "with jnp.asarray(x.numpy())"
        )


def _check_not_empty(function: str, name: str, shape: tuple[int, ...]) -> None:
    if 0 in shape[1:]:
        raise UserError(
            f"{function}: {name} must have at least one number per example, got shape {tuple(shape)}: "
            "pass larger images, or choose another layer"
        )


def check_equal(function: str, what: str, first: object, second: object, fix: str) -> None:
    """Raise unless two properties of the arguments are equal.

    Args:
      function: name of the calling function, for the message.
      what: name of the two properties, in the plural.
      first: of one argument.
      second: of the other.
      fix: advice if they differ.

    Raises:
      UserError: naming both.
    """
    if first != second:
        raise UserError(f"{function}: {what} must be equal, got {first} and {second}: {fix}")


def check_rank(function: str, rank: int, **arrays: Any) -> None:
    """Raise unless every array has the given rank, and at least one number in each example.

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
            holds_arrays = isinstance(array, list | tuple) and any(
                getattr(each, "shape", ()) for each in array
            )
            fix = "convert it with jnp.asarray"
            if holds_arrays or isinstance(array, dict):
                fix = "call it for each and add the results"
            raise UserError(
                f"{function}: {name} must be an array of rank {rank}, got {type(array).__name__}: {fix}"
            )
        _check_not_foreign(function, name, array)
        if len(shape) != rank:
            raise UserError(
                f"{function}: {name} must have rank {rank}, got shape {tuple(shape)}: "
                f"reshape it{_RANK_FIXES.get((rank, len(shape) - rank), '')}"
            )
        _check_not_empty(function, name, shape)


def check_scalar(function: str, **values: Any) -> None:
    """Raise unless every value is a number or an array without axes.

    Args:
      function: name of the calling function, for the message.
      **values: argument name to value.

    Raises:
      UserError: naming the function, the argument, and its type or shape.
    """
    for name, value in values.items():
        shape = getattr(value, "shape", None)
        if shape != () and not (shape is None and isinstance(value, int | float)):
            got = type(value).__name__ if shape is None else f"shape {tuple(shape)}"
            raise UserError(
                f"{function}: {name} must be a number or a scalar array, got {got}: pass one number for "
                "all examples"
            )


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
