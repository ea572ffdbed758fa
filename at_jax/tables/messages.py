"""Messages of the library, in the options of ``at-jax tables``."""

import contextlib
from collections.abc import Iterator

from at_jax.errors import UserError

__all__ = ["in_options", "naming_options"]


@contextlib.contextmanager
def naming_options() -> Iterator[None]:
    """Replace the flags of ``at-jax train`` in the message of a UserError."""
    try:
        yield
    except UserError as error:
        raise UserError(in_options(str(error))) from error


def in_options(message: str) -> str:
    """Replace the flags of ``at-jax train`` in a message.

    >>> in_options("set --config.data.data_dir=DIR, or choose another --workdir")
    'use --data DIR, or choose another --out'
    """
    for flag, option in (
        ("set --config.data.data_dir=", "use --data "),
        ("set --config.", "use --set "),
        ("--config.data.data_dir=", "--data "),
        ("--config.", "--set "),
        ("--workdir", "--out"),
    ):
        message = message.replace(flag, option)
    return message
