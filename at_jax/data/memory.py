"""Memory of this machine, and the check that a data set or a batch fits, before anything is read."""

import os
import pathlib

from at_jax.errors import UserError

__all__ = ["available", "check_fits"]

_CGROUPS = (  # limit, statistics, the name of what is in use in them
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.stat", "anon"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        "total_rss",
    ),
)


def available() -> int | None:
    """Bytes that this process can still use, of its machine, container and limits; None if unknown."""
    found = [_of_machine(), *(_of_container(*names) for names in _CGROUPS), _of_limit()]
    return min((number for number in found if number is not None), default=None)


def check_fits(subject: str, needed: int, fix: str) -> None:
    """Raise if an estimate exceeds the available memory.

    Args:
      subject: what needs the memory.
      needed: bytes.
      fix: how to need less.

    Raises:
      UserError: naming both numbers.
    """
    free = available()
    if free is not None and needed > free:
        raise UserError(
            f"{subject}: expected at most {_size(free)} (the available memory), got "
            f"{_size(needed)}: {fix}"
        )


def _size(number: int) -> str:
    """Format bytes: at most four digits, and a unit."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024:
            return f"{number:,} {unit}"
        number = -(-number // 1024)
    return f"{number:,} PiB" if number < 10**6 else "over a million PiB"


def _read(path: str) -> str:
    try:
        return pathlib.Path(path).read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _number_after(name: str, text: str) -> int | None:
    """The number in the line that begins with a name."""
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return None


def _of_machine() -> int | None:
    kilobytes = _number_after("MemAvailable:", _read("/proc/meminfo"))
    if kilobytes is not None:
        return kilobytes * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return None


def _of_container(limit: str, statistics: str, used: str) -> int | None:
    text = _read(limit).strip()
    if not text.isdigit():  # "max", or no such file
        return None
    return max(0, int(text) - (_number_after(used, _read(statistics)) or 0))


def _of_limit() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    pages = _read("/proc/self/statm").split()
    used = int(pages[0]) * os.sysconf("SC_PAGE_SIZE") if pages else 0
    return max(0, limit - used)
