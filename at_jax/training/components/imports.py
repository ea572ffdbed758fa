"""Imports of what the user names on the command line and in a config, ``package:name``."""

import importlib
import os
import sys
from typing import Any

from at_jax.errors import UserError, listed
from at_jax.terms import Term
from at_jax.training.components import modules

__all__ = ["by_name", "is_term", "packages"]


def by_name(named: str, flag: str = "--module=") -> Any:
    """Import ``"package:name"`` from the import path or the current directory.

    Args:
      named: of a class, a function or an instance.
      flag: that gave it, for messages.

    Raises:
      UserError: if the package or the name does not exist.
    """
    package, _, name = named.partition(":")
    if not (package and name) or package.startswith("."):
        raise UserError(
            f"{flag.rstrip('=')} must be package:name, got {named!r}: for example {flag}my_networks:MyNet"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        imported = importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{flag}{named} cannot be imported ({error}): name a package on the import path or in the "
            "current directory"
        ) from error
    if not hasattr(imported, name):
        known = [key for key, value in vars(imported).items() if modules.is_module_class(value)]
        raise UserError(
            f"{flag}{named}: {package} has no {name}, its modules are {listed(known)}: name one of "
            "them, or an instance or a function at the top level of the package"
        )
    return getattr(imported, name)


def packages(named: Any) -> None:
    """Import the packages of several names, which may add terms to ``at_jax.terms.TERMS``.

    Args:
      named: ``"package:name"``, or several, separated by commas. Other values are ignored.

    Raises:
      UserError: as :func:`by_name`.
    """
    for each in named.split(",") if isinstance(named, str) and named else ():
        by_name(each.strip())


def is_term(named: str) -> bool:
    """Whether ``"package:name"`` is the class of a term, which is imported for ``TERMS`` alone."""
    target = by_name(named)
    return isinstance(target, type) and issubclass(target, Term)
