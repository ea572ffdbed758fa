"""Image folders with a hostile file in them: right pixels, a refusal of one line, or a counted skip."""

import os
import pathlib
import shutil

import numpy as np
from PIL import Image

from at_jax import data
from at_jax.errors import UserError
from at_jax.figures import images
from benchmarks.faults.image_cases import CASES
from benchmarks.faults.image_files import SIDE, Case
from benchmarks.faults.row import Row

__all__ = ["KINDS", "check", "run"]

KINDS = (*CASES, "named pipe", "dangling link", "link to a parent")

_NAMES = ("x", "café", "cafe\u0301", "two\nlines", "a b", "--config", "深", "[1]", "\x1b[31m")


def run(count: int, folder: pathlib.Path, seed: int) -> Row:
    """Write and load data sets, each with one hostile file.

    Args:
      count: number of data sets; their files cycle through the kinds.
      folder: scratch.
      seed: of places, names and contents.
    """
    failures = []
    for index in range(count):
        kind = KINDS[index % len(KINDS)]
        rng = np.random.default_rng((seed, index))
        root = folder / str(index)
        try:
            found = check(kind, root, rng)
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        if found:
            failures.append(f"{kind}, seed {seed}, index {index}: {found}")
        shutil.rmtree(root)
    return Row("image folders with a hostile file", count, tuple(failures))


def check(kind: str, root: pathlib.Path, rng: np.random.Generator) -> str:
    """Write and load one data set.

    Args:
      kind: of the file, one of `KINDS`.
      root: directory to write to.
      rng: of place, name and content.

    Returns:
      What is wrong, or an empty text.
    """
    for split in ("train", "test"):
        for name in "ab":
            (root / split / name / "more").mkdir(parents=True)
            Image.new("RGB", (SIDE, SIDE), (9, 9, 9)).save(root / split / name / "plain.png")
            (root / split / name / ".DS_Store").write_bytes(b"\0")
    split, name = str(rng.choice(["train", "test"])), str(rng.choice(["a", "b"]))
    directory = root / split / name / str(rng.choice([".", "more"]))
    path = directory / str(rng.choice(_NAMES))
    if kind not in CASES:
        return _check_special(kind, path.with_suffix(".png"), root, split)
    case = CASES[kind](rng)
    path = path.with_name(path.name + case.suffix)
    path.write_bytes(case.content)
    options = {"data_dir": str(root), "image_size": SIDE}
    options["memory_limit_mb"] = int(rng.choice([0, 4096]))
    if case.refused:
        return _check_refused(case, path, options, split)
    dataset = data.load("folder", **options)
    if case.skipped:
        return _check_note(dataset.notes, f"{split}: skipped 1 file: 1 {case.skipped}")
    assert case.pixels is not None
    examples = getattr(dataset, split)
    found, labels = examples.take(np.arange(len(examples)))
    difference = np.abs(found.astype(int) - case.pixels).max(axis=(1, 2, 3))
    if len(found) != 3 or difference[labels == "ab".index(name)].min() > case.tolerance:
        return f"pixels differ by {difference.tolist()} of {len(found)} images"
    shown = images.from_files([str(path)], dataset.image_shape, bit_depth=dataset.bit_depth).pixels
    if not (found == shown).all(axis=(1, 2, 3)).any():
        return "at-jax predict reads other pixels"
    return ""


def _check_refused(case: Case, path: pathlib.Path, options: dict, split: str) -> str:
    try:
        data.load("folder", **options)
        return "not refused"
    except UserError as error:
        message = str(error)
    name = path.name if path.name.isprintable() else repr(path.name)[1:-1]
    if case.refused not in message or name not in message or "\n" in message:
        return f"refused with {message!r}"
    dataset = data.load("folder", **options, skip_corrupt=True)
    if len(getattr(dataset, split)) != 2:
        return f"{len(getattr(dataset, split))} images with skip_corrupt"
    return _check_note(dataset.notes, f"{split}: skipped 1 of 3 images")


def _check_special(kind: str, path: pathlib.Path, root: pathlib.Path, split: str) -> str:
    if kind == "named pipe":
        os.mkfifo(path)
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    else:
        path.with_suffix("").symlink_to(root / split)
    dataset = data.load("folder", data_dir=str(root), image_size=SIDE)
    if kind == "link to a parent":
        # The images of both classes are below the link once more; nothing is read twice in one class.
        counts = np.bincount(getattr(dataset, split).labels).tolist()
        return "" if sorted(counts) == [1, 2] else f"{counts} images"
    return _check_note(dataset.notes, f"{split}: skipped 1 file: 1 is a {kind}")


def _check_note(notes: tuple[str, ...], expected: str) -> str:
    return "" if len(notes) == 1 and notes[0].startswith(expected) else f"notes are {notes}"
