"""Messages of the library, in the options of ``at-jax tables``."""

import contextlib
from collections.abc import Iterable, Iterator

from at_jax.errors import replaced, replacing

__all__ = ["in_options", "naming_options"]

_OPTIONS = (
    ("set --config.data.data_dir=", "use --data "),
    ("set --config.", "use --set "),
    ("--config.data.data_dir=", "--data "),
    ("--config.", "--set "),
    ("--workdir", "--out"),
)


@contextlib.contextmanager
def naming_options(tried: Iterable[str] = ()) -> Iterator[None]:
    """Replace the flags of ``at-jax train`` in the message of a UserError.

    Args:
      tried: keys whose values came from ``--search``.
    """
    values = ((f"set it with --set {key}=", f"try others, as in --search {key}=") for key in tried)
    with replacing((*_OPTIONS, *values)):
        yield


def in_options(message: str) -> str:
    """Replace the flags of ``at-jax train`` in a message.

    >>> in_options("set --config.data.data_dir=DIR, or choose another --workdir")
    'use --data DIR, or choose another --out'
    """
    return replaced(message, _OPTIONS)
