"""Files of an image folder: what is read, and what is left out for which reason."""

import collections
import os
import pathlib
import stat
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

from at_jax import paths
from at_jax.errors import UserError, printable

__all__ = ["File", "Skipped", "class_directories", "files_below", "normal", "skipped_line"]

Skipped = collections.Counter[str]  # reason to number of files

# What systems leave in folders, in lower case. Hidden names are passed over, too.
_JUNK = {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "$recycle.bin",
    "system volume information", "icon\r",
}  # fmt: skip
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)  # fmt: skip


class File(NamedTuple):
    """A regular file.

    Attributes:
      path: in full.
      version: size and time of the last change; None in cloud storage.
    """

    path: str
    version: tuple[int, int] | None


def normal(name: str) -> str:
    """The composed form (NFC) of a name; some systems store an accent as a character of its own."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _order(name: str) -> tuple[tuple[str, ...], str]:
    """Sort key: the same order on systems that store names in different forms."""
    return tuple(normal(name).split("/")), name


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK


def class_directories(split_dir: pathlib.Path, skipped: Skipped) -> dict[str, list[str]]:
    """Return the directories in a directory by the composed form of their names, sorted.

    Args:
      split_dir: train or test.
      skipped: receives the files next to the directories.

    Raises:
      UserError: if it cannot be read.
    """
    found: dict[str, list[str]] = {}
    try:
        names = paths.names(split_dir)
    except OSError as error:
        raise _unreadable(str(split_dir), error) from error
    for name in sorted(names, key=_order):
        if _is_junk(name):
            continue
        if (split_dir / name).is_dir():
            found.setdefault(normal(name), []).append(name)
        else:
            skipped["outside of the class directories"] += 1
    return found


def files_below(directory: pathlib.Path, skipped: Skipped, *, unique: bool = False) -> list[File]:
    """Return the regular files in a directory and the directories in it, sorted by name.

    Links are followed, and each directory is read once. Hidden files, and those that systems leave, are
    passed over.

    Args:
      directory: to read.
      skipped: receives what is not a regular file.
      unique: leave out links to files that are among the others; not in cloud storage, which has none.

    Raises:
      UserError: if a directory cannot be read.
    """
    if paths.scheme(directory):
        found = [
            File(os.path.join(directory, name), None)
            for name in paths.files_below(directory)
            if not any(_is_junk(part) for part in name.split("/"))
        ]
    else:
        found = _local_files(str(directory), skipped, unique)
    start = len(os.path.join(directory, ""))
    return sorted(found, key=lambda file: _order(file.path[start:]))


def _local_files(top: str, skipped: Skipped, unique: bool) -> list[File]:
    found: list[File] = []
    links: list[tuple[File, tuple[int, int]]] = []
    seen: set[tuple[int, int]] = set()  # of directories and files
    waiting = [top]  # not recursive: folders may be nested deeper than Python's stack
    while waiting:
        directory = waiting.pop()
        status, entries = _scanned(directory)
        if _node(status) in seen:  # a link to a directory that was read
            continue
        seen.add(_node(status))
        below: list[str] = []
        for entry in entries:
            try:
                status = entry.stat()
            except OSError:  # also of links to themselves
                skipped["a dangling link"] += 1
                continue
            if stat.S_ISDIR(status.st_mode):
                below.append(entry.path)
            elif stat.S_ISREG(status.st_mode):
                file, node = File(entry.path, (status.st_size, status.st_mtime_ns)), _node(status)
                if entry.is_symlink():
                    links.append((file, node))
                else:
                    found.append(file)
                    seen.add(node)
            else:
                skipped[_kind(status.st_mode)] += 1
        waiting += reversed(below)
    for file, node in links:
        if unique and node in seen:
            skipped["repeated by a link"] += 1
        else:
            found.append(file)
            seen.add(node)
    return found


def _node(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _scanned(directory: str) -> tuple[os.stat_result, list[os.DirEntry[str]]]:
    try:
        status = os.stat(directory)
        with os.scandir(directory) as scan:
            entries = [entry for entry in scan if not _is_junk(entry.name)]
    except OSError as error:
        raise _unreadable(directory, error) from error
    return status, sorted(entries, key=lambda entry: _order(entry.name))


def _unreadable(directory: str, error: OSError) -> UserError:
    return UserError(
        f"image folder {printable(directory)}: expected a directory that can be read, got "
        f"{error.strerror}: change its permissions or remove it"
    )


def _kind(mode: int) -> str:
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "no regular file")


def skipped_line(skipped: Mapping[str, int]) -> str:
    """Describe files that were left out, in one line; empty if there are none.

    >>> skipped_line({"TIFF": 2, "text": 1})
    'skipped 3 files: 2 are TIFF, 1 is text'
    """
    if not skipped:
        return ""
    ordered = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    reasons = ", ".join(f"{n:,} {'is' if n == 1 else 'are'} {reason}" for reason, n in ordered)
    total = sum(skipped.values())
    return f"skipped {total:,} file{'' if total == 1 else 's'}: {reasons}"
