"""Prepare a TFDS data set for training: download it and write it as array_record.

    at-jax data --dataset=cifar10 [--data_dir=DIR] [--manual_dir=DIR]

TFDS prepares its sets with TensorFlow; training reads them without it. ``make data DATASET=cifar10``
therefore runs this file in a separate environment, and the file imports nothing from at_jax.
"""

import argparse
import difflib
import logging
import os
import pathlib
import re
import shlex
import socket
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

__all__ = [
    "DEFAULT_DATA_DIR", "FILE_FORMAT", "PrepareError", "archive_names", "closest", "file_formats",
    "in_manual_dir", "main", "prepare", "unreachable_hosts",
]  # fmt: skip

# Not TFDS's default ~/tensorflow_datasets: a set prepared there is tfrecord, which only TensorFlow
# reads, and TFDS keeps one format per directory.
DEFAULT_DATA_DIR = "~/tensorflow_datasets_array_record"
FILE_FORMAT = "array_record"
_PREFLIGHT_SECONDS = 3.0
# Data sets with their own file in configs/.
_CONFIGS = {"imagenet2012": "imagenet", "caltech_birds2011": "cub"}
_CONFIGS |= {name: name for name in ("cifar10", "cifar100")}
_PORTS = {"http": 80, "https": 443, "ftp": 21}


class PrepareError(Exception):
    """A problem that the user can fix, in one line. It is not a UserError, which is part of at_jax."""


def closest(name: str, known: Iterable[str]) -> str:
    """Suggest a fix for the misspelled name of a data set.

    >>> closest("cifar1O", ["cifar10", "mnist"])
    "did you mean 'cifar10'?"
    """
    matches = difflib.get_close_matches(name.partition("/")[0].partition(":")[0], known, n=3)
    if not matches:
        return "see https://www.tensorflow.org/datasets/catalog/overview"
    return f"did you mean {' or '.join(repr(match) for match in matches)}?"


def archive_names(builder: Any) -> list[str]:
    """Return the file names of the archives that a TFDS builder downloads."""
    return sorted(
        info.filename or pathlib.PurePosixPath(urllib.parse.urlparse(url).path).name
        for url, info in builder.url_infos.items()
    )


def file_formats(builder: Any) -> list[str]:
    """Return the file formats of a prepared set, such as ["array_record"]."""
    main, others = builder.info.file_format, builder.info.alternative_file_formats
    return sorted({getattr(f, "value", f) for f in (main, *(others or [])) if f})


def in_manual_dir(builder: Any, manual_dir: str) -> bool:
    """Check whether `manual_dir` contains the archives that the builder would download.

    A builder with configurations lists the archives of all of them, but needs only those of one. For
    such a builder one archive is enough.
    """
    if not manual_dir:
        return False
    found = [(pathlib.Path(manual_dir) / name).exists() for name in archive_names(builder)]
    return any(found) if builder.builder_config else bool(found) and all(found)


def _address(url: str) -> tuple[str, int]:
    """Return the (host, port) to connect to for `url`, or those of the proxy."""
    parts = urllib.parse.urlparse(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urllib.parse.urlparse(proxy if "://" in proxy else f"http://{proxy}")
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)


def unreachable_hosts(urls: Iterable[str]) -> list[str]:
    """Return the hosts of `urls` to which no connection opens within some seconds.

    >>> unreachable_hosts([])
    []
    """
    addresses = {_address(url) for url in urls}
    reached = set()

    def connect(address: tuple[str, int]) -> None:
        try:
            with socket.create_connection(address, timeout=_PREFLIGHT_SECONDS):
                reached.add(address)
        except OSError:
            pass  # not added to the set

    # Daemon threads: a name lookup has no time limit.
    threads = [threading.Thread(target=connect, args=(a,), daemon=True) for a in addresses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PREFLIGHT_SECONDS)
    return sorted({host for host, _ in addresses - reached})


def _builder(name: str, data_dir: str, **options: Any) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir, **options)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        remedy = closest(name, known)
        raise PrepareError(f"TFDS knows no data set {name!r}: {remedy}") from error
    # TFDS raises several types for an unknown name, configuration or version.
    except (ValueError, AssertionError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise PrepareError(f"TFDS cannot open {name!r}: {reason}") from error


def _listed(names: list[str], most: int = 5) -> str:
    """Join at most `most` names and the number of names left out, as at_jax.errors.listed does."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _check_sources(builder: Any, name: str, manual_dir: str) -> None:
    """Raise if the archives are neither in `manual_dir` nor available for download."""
    if in_manual_dir(builder, manual_dir):
        return
    archives = _listed(archive_names(builder)) or "the archives"
    place = f"place {archives} in a directory and pass it: --manual_dir=DIR, MANUAL_DIR=DIR of make"
    if manual_dir and not os.path.isdir(manual_dir):
        raise PrepareError(f"--manual_dir: expected a directory, got {manual_dir!r}: {place}")
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        if manual_dir and os.listdir(manual_dir):
            return  # TFDS checks which of the files it needs
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise PrepareError(f"{name} must be downloaded manually: {place} ({instructions})")
    if hosts := unreachable_hosts(builder.url_infos):
        raise PrepareError(f"cannot reach {', '.join(hosts)} to download {name}: {place}")


def prepare(name: str, data_dir: str = "", manual_dir: str = "") -> str:
    """Prepare a TFDS data set as array_record. A prepared set is left unchanged.

    Args:
      name: name in TFDS, such as "cifar10" or "imagenette/160px-v2".
      data_dir: directory of prepared sets; empty means DEFAULT_DATA_DIR.
      manual_dir: directory with downloaded archives; empty downloads them.

    Returns:
      A message with the directory of the set and the command that trains on it.

    Raises:
      PrepareError: if the name is unknown, the set is prepared in another format, its archives are not
        available, or TensorFlow is missing.
    """
    if not name:
        raise PrepareError("--dataset: expected the name of a TFDS data set, such as cifar10")
    for flag, value in (("data_dir", data_dir), ("manual_dir", manual_dir)):
        if re.match(r"\w\w+:", value):  # gs://bucket, or gs:/typo: not a directory named "gs:"
            raise PrepareError(f"--{flag}: expected a local directory, got {value!r}: choose one")
    data_dir = os.path.abspath(os.path.expanduser(data_dir or DEFAULT_DATA_DIR))
    manual_dir = manual_dir and os.path.abspath(os.path.expanduser(manual_dir))
    builder = _builder(name, data_dir)
    if builder.is_prepared():
        formats = file_formats(builder)
        if FILE_FORMAT not in formats:
            raise PrepareError(
                f"{builder.data_path} holds {name} as {', '.join(formats)}, which training cannot "
                "read: choose another --data_dir, or make data DATA_DIR=..."
            )
        return f"{name} is already prepared in {builder.data_path}\n{_next_step(name, data_dir)}"

    _check_sources(builder, name, manual_dir)
    _download_and_prepare(_builder(name, data_dir, file_format=FILE_FORMAT), manual_dir)
    return f"{name} is prepared in {builder.data_path}\n{_next_step(name, data_dir)}"


def _download_and_prepare(builder: Any, manual_dir: str) -> None:
    import tensorflow_datasets as tfds

    try:
        import tensorflow  # noqa: F401  TFDS would fail only after the download
    except ImportError as error:
        fix = 'pip install "at_jax[data]", or in a clone run make data'
        raise PrepareError(f"preparing needs TensorFlow ({error}): {fix}") from error
    config = tfds.download.DownloadConfig(manual_dir=manual_dir or None)
    try:
        builder.download_and_prepare(download_config=config)
    except Exception as error:
        # Its class is not public. The message names the file and both checksums, on many lines.
        if type(error).__name__ != "NonMatchingChecksumError":
            raise
        raise PrepareError(
            f"the archive is not the one that TFDS expects: {' '.join(str(error).split())}: replace it"
        ) from error


def _next_step(name: str, data_dir: str) -> str:
    config = f"--config={_CONFIGS.get(name, 'cifar10')}"
    name_override = "" if name in _CONFIGS else f" --config.data.name={name}"
    place = f"--config.data.data_dir={shlex.quote(data_dir)}"
    return f"train on it: at-jax train {config}{name_override} {place}"


class _Parser(argparse.ArgumentParser):
    """Raises PrepareError instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            given = message.removeprefix("unrecognized arguments: ").partition("=")[0]
            for close in difflib.get_close_matches(given, self._option_string_actions, n=1):
                message += f": did you mean {close}?"
        raise PrepareError(f"{message} (see at-jax data --help)")


def main(argv: Sequence[str]) -> int:
    """Run the command line `argv`, without the program, and return the exit code."""
    description = "Download a TensorFlow Datasets image set, and convert it for training."
    parser = _Parser(prog="at-jax data", description=description)
    parser.add_argument("--dataset", default="", help="name in TFDS, such as cifar10")
    parser.add_argument("--data_dir", default="", help=f"default: {DEFAULT_DATA_DIR}")
    parser.add_argument("--manual_dir", default="", help="directory with downloaded archives")
    logging.getLogger("absl").setLevel(logging.ERROR)  # TFDS warns that the directory is missing
    try:
        options = parser.parse_args(argv)
        print(prepare(options.dataset, options.data_dir, options.manual_dir))
    except PrepareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    # When run as a file, its directory is on the module path and hides modules of the same names.
    here = str(pathlib.Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if entry != here]
    sys.exit(main(sys.argv[1:]))
