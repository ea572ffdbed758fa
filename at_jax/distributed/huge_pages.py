"""Huge pages for the arrays of a training process on Linux. Imports no jax.

A step allocates and frees hundreds of megabytes, which the kernel maps page by page. With huge pages there
are 512 times fewer of them, and a WRN-16-1 step on two cores takes 0.77 of the time (results/cpu_steps.md).
glibc reads the setting when a process starts, so a command line restarts itself once.
"""

import os
import pathlib
import platform
import re
import sys
from collections.abc import Mapping, Sequence

from at_jax import signals

__all__ = ["KEY", "restart", "wanted", "was_restarted"]

KEY = "runtime.huge_pages"
_VARIABLE, _SETTING = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
_MARK = "AT_JAX_RESTARTED"
_KERNEL = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
# The values and the prefix with which absl turns a flag off.
_OFF = re.compile(rf"{re.escape(KEY)}(=|\s+)(false|f|0)\b|-no\S*{re.escape(KEY)}\b", re.IGNORECASE)


def restart() -> None:
    """Restart this command line with huge pages, unless they are set, turned off or not available.

    The process keeps its number, arguments and files. Signals are held back until it calls
    :func:`at_jax.signals.watch`. Call this before jax is imported and before anything
    is printed.
    """
    if wanted(sys.argv, os.environ) and _available():
        arguments = [sys.executable, *sys.orig_argv[1:]]
        with signals.hold():
            os.execve(sys.executable, arguments, {**os.environ, _VARIABLE: _SETTING, _MARK: "1"})


def was_restarted() -> bool:
    """Whether :func:`restart` restarted this process."""
    return _MARK in os.environ


def wanted(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether the arguments and the environment leave the setting to the program.

    Args:
      argv: of the command line; the key ``runtime.huge_pages`` turns huge pages off.
      environment: a user's own tunables, even empty ones, take precedence. A process whose
        ``JAX_PLATFORMS`` names no CPU does not need huge pages.

    >>> wanted(["train.py"], {}), wanted(["train.py", "--config.runtime.huge_pages=False"], {})
    (True, False)
    >>> wanted(["train.py"], {"GLIBC_TUNABLES": ""}), wanted(["train.py"], {"JAX_PLATFORMS": "cuda"})
    (False, False)
    """
    platforms = environment.get("JAX_PLATFORMS", "")
    on_cpu = not platforms or "cpu" in platforms.split(",")
    return _VARIABLE not in environment and on_cpu and not _OFF.search(" ".join(argv))


def _available() -> bool:
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or not sys.executable:
        return False
    try:
        return "[never]" not in _KERNEL.read_text()
    except OSError:  # a kernel without huge pages
        return False
