"""``at-jax predict``: classes and probabilities of image files."""

import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from at_jax import data
from at_jax.cli.parser import Parser
from at_jax.data import reading
from at_jax.errors import UserError, printable
from at_jax.figures import images
from at_jax.training import networks

__all__ = ["main", "predict"]

_BATCH = 64
_EXAMPLES = """examples:
  at-jax predict --workdir runs/folder photo.jpg
  at-jax predict --workdir runs/folder --top 3 --json photos/*.jpg
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; a UserError is printed as one line, with exit code 2. Other files are classified."""
    description = "Classify image files of any size with the student of a run."
    parser = Parser("predict", description, _EXAMPLES)
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="JPEG, PNG, WebP, BMP or GIF")
    add("--which", choices=("latest", "best"), default="latest", help="checkpoint (%(default)s)")
    add("--top", type=int, default=1, metavar="K", help="number of classes (%(default)s)")
    options = parser.parse(argv)
    if options.top < 1:
        parser.error(f"--top must be at least 1, got {options.top}")
    errors: list[UserError] = []
    try:
        found = predict(
            options.workdir,
            options.files,
            top=options.top,
            which=options.which,
            module=options.module,
            on_error=errors.append,
        )
        if found:
            print("\n".join(_as_json(found) if options.json else _as_table(found)))
    except UserError as error:
        errors.append(error)
    for each in errors:
        print(f"error: {each}", file=sys.stderr)
    return 2 if errors else 0


def predict(
    workdir: str | pathlib.Path,
    files: Sequence[str],
    *,
    top: int = 1,
    which: str = "latest",
    module: Any = None,
    on_error: Callable[[UserError], None] | None = None,
) -> dict[str, list[tuple[str, float]]]:
    """Classify image files. Shorter sides are resized to the network's, then cropped at the center.

    Args:
      workdir: of the run.
      files: images of any size.
      top: number of classes of each file.
      which: ``"latest"`` or ``"best"`` checkpoint.
      module: see :func:`at_jax.checkpoint.load`.
      on_error: called for a file that is no image, which is then left out.

    Returns:
      File to pairs of class and probability, the most probable first.

    Raises:
      UserError: if there is no run, or, without ``on_error``, a file is no image.
    """
    network, variables, described = networks.open_run(workdir, which=which, module=module)
    networks.check_stands_alone(described, workdir)
    height, width, channels = described["image_shape"]
    depth = described.get("bit_depth", reading.MAX_DEPTH)
    shape = (height, width, channels)
    resize = described.get("resize", 0)
    read: dict[str, np.ndarray] = {}
    for file in files:
        try:
            found = images.from_files([file], shape, subject="FILE", bit_depth=depth, resize=resize)
            read[file] = found.pixels[0]
        except UserError as error:
            if on_error is None:
                raise
            on_error(error)
    if not read:
        return {}
    pixels = np.stack(list(read.values()))

    @jax.jit
    def probabilities(batch: jax.Array) -> jax.Array:
        normalized = data.normalize(batch, described["mean"], described["std"])
        logits = network.apply(variables, normalized, train=False)
        return jax.nn.softmax(jnp.asarray(logits, jnp.float32))

    # Every batch has the same shape, so that one program serves all of them.
    size = min(_BATCH, len(pixels))
    padded = np.concatenate([pixels, np.repeat(pixels[-1:], -len(pixels) % size, axis=0)])
    rows = np.concatenate([probabilities(part) for part in np.split(padded, len(padded) // size)])
    names = described.get("class_names") or [f"class {k}" for k in range(described["num_classes"])]
    return {
        file: [(names[k], float(row[k])) for k in np.argsort(-row)[:top]]
        for file, row in zip(read, rows, strict=False)
    }


def _as_json(found: dict[str, list[tuple[str, float]]]) -> Iterator[str]:
    for file, classes in found.items():
        predictions = [{"class": name, "probability": round(p, 6)} for name, p in classes]
        yield json.dumps({"file": file, "predictions": predictions})


def _as_table(found: dict[str, list[tuple[str, float]]]) -> Iterator[str]:
    rows = [("file", "class", "probability")]
    for file, classes in found.items():
        for rank, (name, p) in enumerate(classes):
            rows.append((printable(file) if rank == 0 else "", printable(name), f"{p:.4f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for file, name, probability in rows:
        yield f"{file:<{widths[0]}}  {name:<{widths[1]}}  {probability}"
