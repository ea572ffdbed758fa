"""Compiled programs that are kept between runs: JAX's persistent compilation cache."""

import contextlib
import pathlib
import zlib

import jax
from jax.experimental.compilation_cache import compilation_cache

from at_jax import paths

__all__ = ["discard_incomplete", "use"]

# JAX's names of entries, and our file in the same directory: its time is that of the last check.
_ENTRIES, _CHECKED = "*-cache", "checked"
# Enough for several runs that were killed together; a check takes milliseconds for each.
_MOST_CHECKED = 64
# An entry that was begun before the last check may have been killed after it.
_SECONDS_TO_WRITE = 60.0
_set_here: set[str] = set()  # folders of runs of this process
_ZLIB = b"\x78"  # without the package zstandard, JAX compresses with zlib


def use(folder: str) -> None:
    """Keep compiled programs between runs, small ones too: a start waits for hundreds of them.

    A cache that the user has set for JAX is not changed; that of an earlier run of the process is replaced.

    Args:
      folder: of the cache; empty for none.
    """
    current, path = jax.config.jax_compilation_cache_dir, paths.absolute(folder)
    wanted = str(path) if folder else None
    if (current and current not in _set_here) or current == wanted:
        return
    jax.config.update("jax_compilation_cache_dir", wanted)
    compilation_cache.reset_cache()  # JAX opens a cache once
    if wanted is None:
        return
    _set_here.add(wanted)
    if paths.scheme(path):  # XLA's own caches need a local directory
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    else:
        discard_incomplete(path)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def discard_incomplete(directory: pathlib.Path) -> None:
    """Delete the entries since the last call that a kill or a full disk has cut off.

    JAX writes an entry in place and never replaces one: it would warn at every start, and compile the
    program again. Entries that are compressed with zstandard are not checked. An entry that another process
    is writing may be deleted too; then a later run writes it.

    Args:
      directory: of the cache. Its errors are ignored: runs work without one.
    """
    checked = directory / _CHECKED
    with contextlib.suppress(OSError):
        since = checked.stat().st_mtime - _SECONDS_TO_WRITE if checked.exists() else 0.0
        written = [(path.stat().st_mtime, path) for path in directory.glob(_ENTRIES)]
        for time, path in sorted(written)[-_MOST_CHECKED:]:
            if time >= since and _is_incomplete(path.read_bytes()):
                path.unlink(missing_ok=True)
        if written:
            checked.touch()


def _is_incomplete(content: bytes) -> bool:
    if content and not content.startswith(_ZLIB):
        return False
    decompressor = zlib.decompressobj()
    try:
        decompressor.decompress(content)
    except zlib.error:
        return True
    return not decompressor.eof
