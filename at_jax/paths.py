"""Paths of runs and data: local paths, and paths in cloud storage through ``etils.epath``.

Strings become paths here only. A path in cloud storage has the methods of pathlib.Path that at_jax uses,
except ``absolute`` and ``resolve``: those of epath prepend the current directory, which would make
``gs://bucket/run`` a local directory.
"""

import contextlib
import errno
import importlib.util
import logging
import os
import pathlib
import re
import shutil
import uuid
from typing import Any, cast

from at_jax.errors import UserError, one_line

__all__ = [
    "absolute", "download", "files_below", "names", "parse", "reachable", "remove", "resolve", "scheme",
    "write_bytes",
]  # fmt: skip

# Scheme to the package that fsspec needs for it, and the command that installs it.
_PACKAGES = {"gs": ("gcsfs", 'pip install "at_jax[gcs]"'), "s3": ("s3fs", "pip install s3fs")}
_FORMS = "a local path, gs://BUCKET/PATH or s3://BUCKET/PATH"
_BUCKET = re.compile(r"[a-z0-9][\w.-]*[a-z0-9]")
# A URL, or what pathlib leaves of one: pathlib.Path("gs://bucket") is gs:/bucket.
_LIKE_URL = re.compile(r"([A-Za-z][\w+.-]+:/)|((gs|s3):)|.*(://|/(gs|s3):(/|$))", re.DOTALL)


def parse(given: str | os.PathLike[str]) -> pathlib.Path:
    """Convert a string to a path; ``~`` is expanded.

    Args:
      given: a local path, ``gs://BUCKET/PATH`` or ``s3://BUCKET/PATH``.

    Returns:
      A pathlib.Path, or an epath.Path, which has its methods.

    Raises:
      UserError: for another scheme, a misspelled URL, or a package that is not installed.

    >>> parse("runs/digits").name
    'digits'
    """
    if not isinstance(given, str | os.PathLike):
        raise UserError(
            f"a path must be a string or a pathlib.Path, got {type(given).__name__}: pass {_FORMS}"
        )
    text = os.fspath(given)
    if not _LIKE_URL.match(text):
        return pathlib.Path(text).expanduser()
    found, _, rest = text.partition("://")
    if found not in _PACKAGES or not _BUCKET.fullmatch(rest.split("/")[0]):
        raise UserError(f"cannot use the path {text!r}: expected {_FORMS}: {_fix(text)}")
    package, command = _PACKAGES[found]
    if not _is_installed(package):
        raise UserError(f"{text} needs {package}, which is not installed: {command}")
    return cast(pathlib.Path, _epath(text))


def _fix(text: str) -> str:
    named = re.search(r"(^|/)(gs|s3):", text.lower())
    if named is None:
        return "copy it to one of these"
    if not text.startswith(f"{named[2]}://"):
        return f"begin with {named[2]}://, and pass a string (pathlib.Path drops a slash)"
    return f"write the name of the bucket after {named[2]}://"


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _epath(text: str) -> Any:
    """A path that always uses fsspec, and sees what Orbax and other machines write."""
    # Otherwise epath imports TensorFlow where it is installed.
    os.environ.setdefault("EPATH_USE_TF", "false")
    import fsspec
    from etils import epath

    # It logs the traceback of every error that it raises.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    for name in ("gs", "gcs", "s3"):
        fsspec.config.conf.setdefault(name, {}).setdefault("use_listings_cache", False)
    return epath.Path(text)


def scheme(path: str | os.PathLike[str]) -> str:
    """``"gs"``, ``"s3"``, or ``""`` for a local path."""
    found, is_url, _ = os.fspath(path).partition("://")
    return found if is_url else ""


def absolute(given: str | os.PathLike[str]) -> pathlib.Path:
    """Convert to an absolute path.

    Raises:
      UserError: as :func:`parse`.
    """
    path = parse(given)
    return path if scheme(path) else path.absolute()


def resolve(given: str | os.PathLike[str]) -> pathlib.Path:
    """Convert to an absolute path without symbolic links.

    Raises:
      UserError: as :func:`parse`.
    """
    path = parse(given)
    return path if scheme(path) else path.resolve()


def reachable(given: str | os.PathLike[str]) -> pathlib.Path:
    """Convert as :func:`parse`, and access the path once; nothing has to exist there.

    Raises:
      UserError: as :func:`parse`, or with the reason why the storage cannot be accessed.
    """
    path = parse(given)
    if not scheme(path):
        try:
            os.stat(path)
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
                raise UserError(
                    f"{path} cannot be used ({error.strerror}): choose another path"
                ) from error
        return path
    try:
        path.exists()
    except Exception as error:  # the libraries behind fsspec have errors of their own
        raise UserError(
            f"{path} cannot be read ({_reason(error)}): check the bucket and your credentials"
        ) from error
    return path


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Write a file atomically: a reader sees the old file or the new one, after a power failure too.

    A missing directory is created.

    Raises:
      OSError: if it cannot be written.
    """
    if scheme(path):
        try:
            path.write_bytes(content)  # an object appears when it is complete
        except Exception as error:  # as in reachable
            raise OSError(errno.EIO, _reason(error), str(path)) from error
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Unique: machines that share the directory may have equal process numbers.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_directory(directory: pathlib.Path) -> None:
    """Make a new name in a directory durable, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def names(directory: pathlib.Path) -> list[str]:
    """Names of the files and directories in a directory, sorted; in cloud storage none if it is missing."""
    if not scheme(directory):
        return sorted(os.listdir(directory))
    # An empty directory is an object with the directory's own name, which may be listed in it, or nothing.
    with contextlib.suppress(FileNotFoundError):
        return sorted({path.name for path in directory.iterdir() if path != directory})
    return []


def files_below(directory: pathlib.Path) -> list[str]:
    """Names of all files below a directory in cloud storage, with slashes, by one listing."""
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(str(directory))
    found = filesystem.find(root, detail=True)
    # An empty directory is an object whose name ends in a slash.
    files = (name for name, info in found.items() if info["type"] == "file")
    below = [name.split(root.strip("/") + "/", 1)[-1] for name in files]
    return sorted(name for name in below if name and not name.endswith("/"))


def remove(directory: pathlib.Path) -> None:
    """Delete a directory and everything in it, if it exists."""
    if scheme(directory):
        cast(Any, directory).rmtree(missing_ok=True)
    else:
        shutil.rmtree(directory, ignore_errors=True)


def download(directory: pathlib.Path, into: pathlib.Path) -> None:
    """Copy a directory from cloud storage to a local one."""
    into.mkdir(parents=True, exist_ok=True)
    for name in names(directory):
        path = directory / name
        if path.is_dir():
            download(path, into / name)
        else:
            (into / name).write_bytes(path.read_bytes())
