"""Source commit, package versions and time of a run, recorded with its result."""

import datetime
import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

from at_jax.version import __version__

__all__ = ["commit", "now", "origin", "versions"]

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def commit() -> str:
    """Git commit of the source code.

    Returns:
      The abbreviated hash, with ``-dirty`` if files were changed; empty outside a git repository.
    """
    file = pathlib.Path(__file__)
    try:
        # An installed package may be in the repository of another project, which does not track it.
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        # --exclude=* makes git describe print the hash even where a tag exists.
        return _git(file.parent, "describe", "--always", "--dirty", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: pathlib.Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def origin(device: str, students: int) -> dict[str, Any]:
    """Describe where runs are trained, for their result.json.

    Args:
      device: as :func:`at_jax.distributed.devices.describe` formats it.
      students: number of students in the program.
    """
    return {
        "trained_together": students,
        "device": device,
        "versions": versions(),
        "commit": commit(),
    }


def versions() -> dict[str, str]:
    """Versions of Python, at_jax and the packages that affect the numbers.

    >>> sorted(versions())
    ['Python', 'at_jax', 'flax', 'jax', 'jaxlib', 'numpy', 'optax']
    """
    known = {"at_jax": __version__, "Python": platform.python_version()}
    return known | {name: importlib.metadata.version(name) for name in _PACKAGES}


def now() -> str:
    """Current time in UTC as ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
