"""``at-jax predict``: classes and probabilities of image files."""

import collections
import itertools
import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from at_jax import data
from at_jax.cli.parser import CommandParser
from at_jax.data.files import photographs, reading
from at_jax.errors import UserError, printable
from at_jax.training.components import networks

__all__ = ["Prediction", "main", "predict"]

_BATCH = 64
_EXAMPLES = """examples:
  at-jax predict --workdir runs/folder photo.jpg
  at-jax predict --workdir runs/folder --top 3 photos/
  at-jax predict --workdir runs/folder --json photos/ > classes.jsonl
"""


class Prediction(NamedTuple):
    """Prediction for an image file.

    Attributes:
      file: as it was named or found.
      classes: pairs of class and probability, the most probable first.
      true_class: the class of its directory, see :func:`at_jax.data.files.photographs.class_of`; or None.
    """

    file: str
    classes: list[tuple[str, float]]
    true_class: str | None


def main(argv: Sequence[str]) -> int:
    """Run the command. Files that cannot be read are named on stderr, with exit code 2."""
    description = "Classify image files of any size with the student of a run."
    parser = CommandParser("predict", description, _EXAMPLES)
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="image, or a directory of images")
    add("--which", choices=("latest", "best"), default="latest", help="checkpoint (%(default)s)")
    add("--top", type=int, default=1, metavar="K", help="number of classes (%(default)s)")
    options = parser.parse_args(argv)
    if options.top < 1:
        parser.error(f"--top must be at least 1, got {options.top}")
    code = 0

    def report(error: UserError) -> None:
        nonlocal code
        code = 2
        print(f"error: {error}", file=sys.stderr)

    try:
        found = predict(
            options.workdir,
            options.files,
            top=options.top,
            which=options.which,
            module=options.module,
            on_error=report,
        )
        counts: collections.Counter[bool] = collections.Counter()
        found = _counting(found, counts)
        for line in _as_json(found) if options.json else _as_table(found):
            print(line)
        if known := counts.total():
            wrong = counts[False]
            print(
                f"note: error {100 * wrong / known:.2f} %: of {known:,} images in directories with the "
                f"name of a class, {wrong:,} are classified as another",
                file=sys.stderr,
            )
    except UserError as error:
        report(error)
    return code


def predict(
    workdir: str | pathlib.Path,
    files: Sequence[str],
    *,
    top: int = 1,
    which: str = "latest",
    module: Any = None,
    on_error: Callable[[UserError], None],
) -> Iterator[Prediction]:
    """Classify images, in batches. Shorter sides are resized to the network's, then cropped at the center.

    Args:
      workdir: of the run.
      files: images of any size, and directories of images.
      top: number of classes of each file.
      which: ``"latest"`` or ``"best"`` checkpoint.
      module: see :func:`at_jax.checkpoint.load`.
      on_error: called for a file that cannot be read, which is then left out.

    Yields:
      Predictions, in the order of the files.

    Raises:
      UserError: if there is no run.
    """
    network, variables, described = networks.open_run(workdir, which=which, module=module)
    networks.check_needs_no_teacher(described, workdir)
    known = described.get("class_names") or ()
    names = known or [f"class {k}" for k in range(described["num_classes"])]

    @jax.jit
    def probabilities(batch: jax.Array) -> jax.Array:
        normalized = data.normalize(batch, described["mean"], described["std"])
        logits = network.apply(variables, normalized, train=False)
        return jax.nn.softmax(jnp.asarray(logits, jnp.float32))

    remaining, below = _files(files, on_error), photographs.roots(files)
    size = 0
    while chosen := list(itertools.islice(remaining, _BATCH)):
        size = size or len(chosen)  # later ones are padded, so that one program serves all
        read = list(_readable(chosen, described, on_error))
        if not read:
            continue
        pixels = np.stack([image for _, image in read])
        padded = np.concatenate([pixels, np.repeat(pixels[-1:], size - len(pixels), axis=0)])
        for (file, _), row in zip(read, np.asarray(probabilities(padded)), strict=False):
            classes = [(names[k], float(row[k])) for k in np.argsort(-row, kind="stable")[:top]]
            label = photographs.class_of(file, known, below)
            yield Prediction(file, classes, None if label is None else names[label])


def _counting(
    found: Iterable[Prediction], counts: "collections.Counter[bool]"
) -> Iterator[Prediction]:
    """Count the right and the wrong predictions of images whose class is known."""
    for each in found:
        if each.true_class is not None:
            counts[each.classes[0][0] == each.true_class] += 1
        yield each


def _files(names: Sequence[str], on_error: Callable[[UserError], None]) -> Iterator[str]:
    for name in names:
        try:
            yield from photographs.find(name, subject="FILE")
        except UserError as error:
            on_error(error)


def _readable(
    files: Sequence[str], described: Mapping[str, Any], on_error: Callable[[UserError], None]
) -> Iterator[tuple[str, np.ndarray]]:
    found = photographs.read_files(
        files,
        tuple(described["image_shape"]),
        subject="FILE",
        bit_depth=described.get("bit_depth", reading.MAX_DEPTH),
        resize=described.get("resize", 0),
    )
    for file, pixels in zip(files, found, strict=True):
        if isinstance(pixels, UserError):
            on_error(pixels)
        else:
            yield file, pixels


def _as_json(found: Iterable[Prediction]) -> Iterator[str]:
    for file, classes, true_class in found:
        predictions = [{"class": name, "probability": round(p, 6)} for name, p in classes]
        known = {} if true_class is None else {"true_class": true_class}
        yield json.dumps({"file": file, **known, "predictions": predictions})


def _as_table(found: Iterable[Prediction]) -> Iterator[str]:
    rows = [("file", "class", "probability")]
    for file, classes, _ in found:
        for rank, (name, p) in enumerate(classes):
            rows.append((printable(file) if rank == 0 else "", printable(name), f"{p:.4f}"))
    if len(rows) == 1:
        return
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for file, name, probability in rows:
        yield f"{file:<{widths[0]}}  {name:<{widths[1]}}  {probability}"
