"""``at-jax weights``: weights of PyTorch as a run, and the weights of a run for other programs."""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax

from at_jax import models, paths
from at_jax.cli.parser import Parser
from at_jax.errors import UserError, printable
from at_jax.models import imagenet, pretrained
from at_jax.training import export, imported
from at_jax.training.console import log

__all__ = ["main", "run"]

_EXAMPLES = """examples:
  at-jax weights resnet18.safetensors runs/resnet18
  at-jax weights resnet34.pth runs/teacher --model=resnet_34 --class_names=imagenet.txt
  at-jax weights resnet18.pth runs/start --num_classes=67    a new classifier for 67 classes
  at-jax weights efficientnet_lite0 runs/teacher             ImageNet weights of the extra pretrained
  at-jax weights runs/digits student.safetensors --to-safetensors
  at-jax weights runs/digits student.stablehlo --to-stablehlo
"""
_MOST_CLASSES = 100_000


def main(argv: Sequence[str]) -> int:
    """Run the command; a UserError is printed as one line, with exit code 2."""
    parser = _parser()
    options = parser.parse(argv)
    try:
        run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> Parser:
    description = (
        "Convert a PyTorch weights file (.safetensors, .pth or .pt) to a run, or export the network of a "
        "run. PyTorch is not needed, and no code from a file is executed."
    )
    parser = Parser("weights", description, _EXAMPLES, on_run=False)
    add = parser.add_argument
    add("source", metavar="SOURCE",
        help="weights file; efficientnet_lite0 for the weights of the extra pretrained; or directory of a "
        "run to export")  # fmt: skip
    add("dest", metavar="DEST", help="directory of the new run, or file; it must not exist")
    add("--model", help="network of the file (default: as at-jax wrote it, or resnet_18)")
    add("--num_classes", type=int, metavar="K",
        help="number of classes (default: of the file); another number needs a new classifier")  # fmt: skip
    add("--seed", type=int, default=0, help="seed of a new classifier (%(default)s)")
    add("--class_names", metavar="FILE", help="text file of class names, one per line")
    add(
        "--image_size",
        type=int,
        metavar="PIXELS",
        help="size of its images (default: of the file or the network)",
    )
    add("--mean", type=float, nargs="+", metavar="X",
        help="of its images per channel, in 0..255 (default: of the file or the network)")  # fmt: skip
    add("--std", type=float, nargs="+", metavar="X", help="standard deviation, as --mean")
    add("--to-safetensors", action="store_true",
        help="write the network of the run SOURCE with PyTorch's names")  # fmt: skip
    add(
        "--to-stablehlo",
        action="store_true",
        help="export the network of the run SOURCE with jax.export",
    )
    add("--which", choices=("latest", "best"), default="latest", help="checkpoint (%(default)s)")
    add("--module", metavar="PACKAGE:NAME", help="user-defined module that the run trained")
    return parser


def run(options: argparse.Namespace) -> None:
    """Read the source, then write the destination.

    Raises:
      UserError: if nothing was written, with the reason.
    """
    if options.to_safetensors and options.to_stablehlo:
        raise UserError("--to-safetensors and --to-stablehlo write one file each: pass one of them")
    exports = options.to_safetensors or options.to_stablehlo
    if options.to_safetensors and not options.dest.lower().endswith(".safetensors"):
        raise UserError(f"DEST must end in .safetensors, got {printable(options.dest)}: rename it")
    destination = imported.check_free(options.dest, is_file=exports)
    (_export if exports else _import)(options, destination)


def _export(options: argparse.Namespace, destination: pathlib.Path) -> None:
    make = export.to_safetensors if options.to_safetensors else export.to_stablehlo
    content = make(options.source, which=options.which, module=options.module)
    try:
        paths.write_bytes(destination, content)
    except OSError as error:
        raise UserError(f"DEST {destination} cannot be written ({error.strerror})") from error
    log(f"{destination}: {len(content):,} bytes")


def _import(options: argparse.Namespace, destination: pathlib.Path) -> None:
    source = printable(options.source)
    if os.path.isdir(options.source):
        raise UserError(
            f"SOURCE {source} is a directory: give a weights file, or write the network of a run "
            "with --to-safetensors or --to-stablehlo"
        )
    names = _class_names(options.class_names)
    known = _complete(options)
    of_imagenet = models.build(options.model, 1000)
    family, found = pretrained.family(of_imagenet), pretrained.read(options.source)
    classes = options.num_classes or pretrained.classes(found, of_imagenet) or 1000
    if not names and len(known) == classes:
        names = list(known)
    module: Any = models.build(options.model, classes)
    key = jax.random.key(options.seed)
    loaded = pretrained.convert(found, module, key=key, source=source)
    description = imported.describe(
        options.model,
        classes,
        class_names=names,
        image_shape=pretrained.image_shape(found, module, options.image_size or 0),
        mean=options.mean or family.mean,
        std=options.std or family.std,
    )
    imported.create(destination, loaded.variables, description, pathlib.Path(options.source).name)
    if loaded.new_head:
        log(
            f"The classifier in the file has {loaded.classes:,} classes: a new one for {classes:,} classes "
            f"is initialized (seed {options.seed})"
        )
    log(f"{destination}: {family.title(module)} with {classes:,} classes from {source}")


def _complete(options: argparse.Namespace) -> Sequence[str]:
    """Set options that are not given to what the file says of its network; return its class names."""
    stored = pretrained.description(options.source)
    options.model = options.model or stored.get("name") or "resnet_18"
    options.mean = options.mean or stored.get("mean")
    options.std = options.std or stored.get("std")
    if options.image_size is None and "image_shape" in stored:
        options.image_size = stored["image_shape"][0]
    _check_numbers(options)
    if options.source == imagenet.NAME:
        options.source, options.model = str(imagenet.weights_file()), imagenet.NAME
        return imagenet.class_names()
    return stored.get("class_names", ())


def _check_numbers(options: argparse.Namespace) -> None:
    ranges = {
        "num_classes": (2, _MOST_CLASSES),
        "image_size": (8, 4096),
        "seed": (0, 2**32 - 1),
    }
    for name, (least, most) in ranges.items():
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            raise UserError(f"--{name} must be within {least}..{most}, got {value}: change it")
    for name, smallest in (("mean", 0.0), ("std", 0.1)):
        if any(not smallest <= value <= 255 for value in getattr(options, name) or ()):
            raise UserError(
                f"--{name} must be within {smallest}..255, as pixels are, got {getattr(options, name)}: "
                "multiply numbers for pixels in 0..1 by 255"
            )


def _class_names(path: str | None) -> list[str]:
    if path is None:
        return []
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(
            f"--class_names: {path!r} cannot be read ({reason}): give a text file"
        ) from error
    return text.strip().splitlines()
