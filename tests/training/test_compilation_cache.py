"""The compilation cache after a kill: entries that are cut off are written again."""

import os
import subprocess
import sys
import zlib

import pytest

from at_jax.training import compilation_cache

# Compiles one function with a cache, as JAX does for its users. Warnings are errors.
COMPILE = """
import sys
import jax, jax.numpy as jnp
from at_jax.training import compilation_cache
if sys.argv[2] == "check":
    compilation_cache.use(sys.argv[1])
else:
    jax.config.update("jax_compilation_cache_dir", sys.argv[1])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.config.update("jax_raise_persistent_cache_errors", True)
print(jax.jit(lambda x: x @ x + 1)(jnp.eye(2))[0, 0])
"""


def compile_with(directory, mode):
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", COMPILE, str(directory), mode]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_program_whose_entry_is_cut_off_is_compiled_and_stored_again(tmp_path):
    assert compile_with(tmp_path, "as jax").stdout == "2.0\n"
    entries = {path: path.read_bytes() for path in tmp_path.glob("*-cache")}
    for path, content in entries.items():
        path.write_bytes(content[: len(content) // 2])
    # Otherwise the entry stays as it is.
    assert "incomplete or truncated" in compile_with(tmp_path, "as jax").stderr
    done = compile_with(tmp_path, "check")
    assert (done.stdout, done.stderr) == ("2.0\n", "")
    assert entries and all(path.stat().st_size > len(entries[path]) / 2 for path in entries)


@pytest.fixture
def entry(tmp_path):
    """Writes an entry at a number of seconds, and tells whether a check leaves it."""

    def stays(content, seconds):
        path = tmp_path / "jit_f-0-cache"
        path.write_bytes(content)
        os.utime(path, (seconds, seconds))
        compilation_cache.discard_incomplete(tmp_path)
        return path.exists()

    return stays


def test_entries_that_are_cut_off_or_changed_are_deleted(entry):
    whole = zlib.compress(bytes(range(256)) * 4)
    assert entry(whole, 0)
    assert not entry(whole[:-1], 4e9) and not entry(b"", 4e9)
    assert not entry(whole[:50] + b"?" + whole[51:], 4e9)
    # Of another compression, which only its own package could check.
    assert entry(b"\x28\xb5\x2f\xfd cut", 4e9)


def test_entries_are_checked_once(entry, tmp_path):
    assert entry(zlib.compress(b"whole"), 1000)
    for written, stays in ((1900, True), (1990, False)):  # the second may have been begun before
        os.utime(tmp_path / "checked", (2000, 2000))
        assert entry(zlib.compress(b"cut")[:-1], written) == stays


def test_a_cache_that_is_no_directory_is_none(tmp_path):
    compilation_cache.discard_incomplete(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
    (tmp_path / "file").write_text("")
    compilation_cache.discard_incomplete(tmp_path / "file")
