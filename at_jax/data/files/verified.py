"""Image files that were decoded before without an error, remembered between runs.

Decoding a million images to find the corrupt ones takes minutes. A file that was found good, and has the
same name, size and time of its last change, is not decoded again.
"""

import hashlib
import os
import pathlib
import zlib
from collections.abc import Sequence

import numpy as np

from at_jax import paths
from at_jax.data.files.listing import File

__all__ = ["ENTRY", "Verified"]

# A change of what is read, or how, makes every entry invalid.
_FORMAT = b"at_jax images 1\n"
# A hash of name, size and time; the largest value of a 16-bit file, 0 for others; pixels, 0 if not known.
ENTRY = np.dtype([("key", "<u8"), ("largest", "<u2"), ("width", "<u4"), ("height", "<u4")])


def _directory() -> pathlib.Path:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return pathlib.Path(os.path.expanduser(cache)) / "at_jax" / "images"


class Verified:
    """Files of one folder that were found good.

    Args:
      root: of the data set.
    """

    def __init__(self, root: pathlib.Path):
        self._root = root
        name = hashlib.sha256(os.fsencode(paths.resolve(root))).hexdigest()[:16]
        self._path = _directory() / name
        self._known = self._load()

    def keys(self, files: Sequence[File]) -> np.ndarray:
        """Hashes of files, uint64 ``(N,)``; 0 where a file cannot be remembered."""
        return np.array([_key(file, str(self._root)) for file in files], np.uint64)

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the entries of files.

        Returns:
          Whether each is known, bool ``(N,)``, and the entries ``(N,)``, which are zeros where not.
        """
        entries = np.zeros(len(keys), ENTRY)
        if not len(self._known):
            return np.zeros(len(keys), bool), entries
        place = np.minimum(np.searchsorted(self._known["key"], keys), len(self._known) - 1)
        known = (self._known["key"][place] == keys) & (keys != 0)
        entries[known] = self._known[place[known]]
        return known, entries

    def remember(self, entries: np.ndarray) -> None:
        """Store entries of files; those of files that are no longer there are dropped."""
        entries = np.unique(entries[entries["key"] != 0])
        if np.array_equal(entries, self._known):
            return
        content = entries.tobytes()
        head = _FORMAT + zlib.crc32(content).to_bytes(4, "big")
        try:
            paths.write_bytes(self._path, head + content)
            self._known = entries
        except OSError:
            pass  # The files are decoded again the next time.

    def _load(self) -> np.ndarray:
        size = len(_FORMAT) + 4
        try:
            stored = self._path.read_bytes()
        except OSError:
            stored = b""
        content = stored[size:]
        expected = _FORMAT + zlib.crc32(content).to_bytes(4, "big")
        if stored[:size] != expected or len(content) % ENTRY.itemsize:
            return np.zeros(0, ENTRY)
        return np.frombuffer(content, ENTRY)


def _key(file: File, root: str) -> int:
    if file.version is None:
        return 0
    name = file.path.removeprefix(root)
    text = "\0".join((name, *map(str, file.version)))
    digest = hashlib.blake2b(os.fsencode(text), digest_size=8).digest()
    return int.from_bytes(digest, "little")
