"""Damage to one file of a finished run, and the same command again.

Allowed: the same data; a warning, and the checkpoint before; a message of one line. Everything else is a
failure: another exception, a message of several lines, other data without a word.
"""

import contextlib
import io
import itertools
import pathlib
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from at_jax.errors import UserError
from benchmarks.faults import small_run
from benchmarks.faults.row import Row

__all__ = ["run"]

_EVENTS = "events."  # written for TensorBoard, never read


def run(count: int, folder: pathlib.Path, seed: int) -> Row:
    """Damage files of a run of four epochs.

    Args:
      count: number of damages.
      folder: scratch.
      seed: of the choice of files, damages and bits.
    """
    original, cache = folder / "original", folder / "cache"
    with contextlib.redirect_stdout(io.StringIO()):
        small_run.train(original, cache)
    expected = {name: read(original) for name, read in _READERS.items()}
    rng = random.Random(seed)
    failures = []
    for index, (path, name) in enumerate(_cases(original, count, rng)):
        workdir = folder / f"damaged-{index}"
        shutil.copytree(original, workdir)
        _DAMAGES[name](workdir / path, rng)
        failures += [f"{path}, {name}: {what}" for what in _failures(workdir, cache, expected)]
        shutil.rmtree(workdir)
    return Row("damage to one file, and the same command again", count, tuple(failures))


def _cases(
    original: pathlib.Path, count: int, rng: random.Random
) -> Iterator[tuple[pathlib.Path, str]]:
    """Every file with some damage, then the next damage, in random order."""
    files = [path for path in sorted(original.rglob("*")) if path.is_file()]
    files = [path.relative_to(original) for path in files if not path.name.startswith(_EVENTS)]
    pairs = [(path, name) for name in _DAMAGES for path in rng.sample(files, len(files))]
    # Bits are drawn anew in every round.
    yield from itertools.islice(itertools.cycle(pairs), count)


def _failures(
    workdir: pathlib.Path, cache: pathlib.Path, expected: dict[str, Any]
) -> Iterator[str]:
    """Read the run, train it again, and read it again."""
    for name, read in _READERS.items():
        yield from _failure(f"reading {name}", lambda read=read: read(workdir), expected[name])
    refused: list[str] = []

    def train():
        try:
            small_run.train(workdir, cache)
        except UserError as error:
            refused.append(str(error))
            raise

    yield from _failure("training", train, None)
    if not refused:
        for name, read in _READERS.items():
            what = f"reading {name} afterwards"
            yield from _failure(what, lambda read=read: read(workdir), expected[name])


def _failure(what: str, call: Callable[[], Any], expected: Any) -> Iterator[str]:
    with warnings.catch_warnings(record=True) as told, contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        try:
            found = call()
        except UserError as error:
            if "\n" in str(error):
                yield f"{what}: a message of several lines"
            return
        except Exception as error:  # what a user would see as a traceback
            yield f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return
    if expected is not None and not _equal(found, expected) and not told:
        yield f"{what}: other data without a word"


def _equal(found: Any, expected: Any) -> bool:
    if jax.tree.structure(found) != jax.tree.structure(expected):
        return False
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def _read_config(workdir: pathlib.Path) -> dict[str, Any]:
    from at_jax.training.files import run_files

    return run_files.read_config(workdir)


def _read_errors(workdir: pathlib.Path) -> list[float]:
    """Errors in result.json. Without it a run counts as unfinished, which is one line."""
    from at_jax.training.components import networks
    from at_jax.training.files import run_files

    if not run_files.has_result(workdir):
        networks.load_teacher(str(workdir), "float32", small_run.Network())  # raises
    result = run_files.read_result(workdir)
    keys = ("test_error", "best_test_error")
    return [] if result is None else [result[key] for key in keys]


_READERS: dict[str, Callable[[pathlib.Path], Any]] = {
    "the latest checkpoint": small_run.state,
    "the best checkpoint": lambda workdir: small_run.state(workdir, "best"),
    "the metrics": small_run.lines,
    "the config": _read_config,
    "the result": _read_errors,
}


def _rewrite(change: Callable[[bytes, random.Random], bytes]) -> Callable[..., None]:
    return lambda path, rng: path.write_bytes(change(path.read_bytes(), rng))


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _remove(path: pathlib.Path, rng: random.Random) -> None:
    path.unlink()


def _make_folder(path: pathlib.Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _exchange(path: pathlib.Path, rng: random.Random) -> None:
    """Exchange with a file of the same name, or else of any name."""
    root = next(p for p in path.parents if p.name.startswith("damaged-"))
    others = [p for p in sorted(root.rglob("*")) if p.is_file() and p != path]
    other = rng.choice([p for p in others if p.name == path.name] or others)
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


def _exchange_folders(path: pathlib.Path, rng: random.Random) -> None:
    """Exchange the checkpoint that holds the file, or any, with another one."""
    root = next(p for p in path.parents if p.name.startswith("damaged-"))
    steps = sorted((root / "checkpoints").iterdir(), key=lambda p: p.name)
    first, second = rng.sample(steps, 2)
    first.rename(root / "aside")
    second.rename(first)
    (root / "aside").rename(second)


_DAMAGES: dict[str, Callable[[pathlib.Path, random.Random], None]] = {
    "a flipped bit": _rewrite(_flip),
    "emptied": _rewrite(lambda content, rng: b""),
    "cut in half": _rewrite(lambda content, rng: content[: len(content) // 2]),
    "without its last byte": _rewrite(lambda content, rng: content[:-1]),
    "removed": _remove,
    "garbage": _rewrite(lambda content, rng: rng.randbytes(max(16, len(content)))),
    "a folder": _make_folder,
    "exchanged": _exchange,
    "doubled": _rewrite(lambda content, rng: 2 * content),
    "JSON of another kind": _rewrite(lambda content, rng: b"[3]\n"),
    "another flipped bit": _rewrite(_flip),
    "folders exchanged": _exchange_folders,
}
