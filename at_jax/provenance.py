"""Which code, on which versions, when: what a result needs to be believed, and repeated."""

import datetime
import importlib.metadata
import pathlib
import platform
import subprocess

from at_jax.version import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def commit() -> str:
    """The commit that the code comes from, with ``-dirty`` where files differ; empty outside git."""
    folder = pathlib.Path(__file__).parent
    # --exclude=*: a tag is no commit.
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Package -> version, of what the numbers depend on.

    >>> sorted(versions())
    ['Python', 'at_jax', 'flax', 'jax', 'jaxlib', 'numpy', 'optax']
    """
    known = {"at_jax": __version__, "Python": platform.python_version()}
    return known | {name: importlib.metadata.version(name) for name in _PACKAGES}


def now() -> str:
    """The time, in UTC and ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
