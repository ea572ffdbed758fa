"""``at-jax weights``: weights of PyTorch as a run, and the weights of a run for other programs."""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

import jax

from at_jax import paths
from at_jax.cli.parser import CommandParser
from at_jax.errors import UserError, printable
from at_jax.models import imagenet, pretrained
from at_jax.training import class_names, export, imported
from at_jax.training.console import log
from at_jax.training.settings.data import is_of_unit_range

__all__ = ["main", "run"]

_EXAMPLES = """examples:
  at-jax weights resnet18.safetensors runs/resnet18
  at-jax weights resnet34.pth runs/teacher --model=resnet_34 --class_names=imagenet.txt
  at-jax weights resnet18.pth runs/start --num_classes=67    a new classifier for 67 classes
  at-jax weights efficientnet_lite0 runs/teacher             ImageNet weights of the extra pretrained
  at-jax weights runs/digits student.safetensors --to-safetensors
  at-jax weights runs/digits student.stablehlo --to-stablehlo
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; a UserError is printed as one line, with exit code 2."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> CommandParser:
    description = (
        "Convert a PyTorch weights file (.safetensors, .pth or .pt) to a run, or export the network of a "
        "run. PyTorch is not needed, and no code from a file is executed."
    )
    parser = CommandParser("weights", description, _EXAMPLES, on_run=False)
    add = parser.add_argument
    add("source", metavar="SOURCE",
        help="weights file; efficientnet_lite0 for the weights of the extra pretrained; or directory of a "
        "run to export")  # fmt: skip
    add("dest", metavar="DEST", help="directory of the new run, or file; it must not exist")
    add("--model", help="network of the file (default: as at-jax wrote it, or resnet_18)")
    add("--num_classes", type=int, metavar="K",
        help="number of classes (default: of the file); for another number, a new classifier is "
        "initialized")  # fmt: skip
    add("--seed", type=int, help="seed of a new classifier (default: 0)")
    add("--class_names", metavar="FILE", help="text file of class names, one per line")
    add(
        "--image_size",
        type=int,
        metavar="PIXELS",
        help="size of its images (default: of the file or the network)",
    )
    add("--resize", type=int, metavar="PIXELS",
        help="shorter side of a photograph before the center is cropped (default: of the file, or "
        "--image_size)")  # fmt: skip
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
    _check_used(options, exports)
    if options.to_safetensors and not options.dest.lower().endswith(".safetensors"):
        raise UserError(f"DEST must end in .safetensors, got {printable(options.dest)}: rename it")
    destination = _check_free(options.dest, is_file=exports)
    (_export if exports else _import)(options, destination)


def _check_used(options: argparse.Namespace, exports: bool) -> None:
    """Raise for a flag of the other direction."""
    of_import = (
        "model", "num_classes", "seed", "class_names", "image_size", "resize", "mean", "std",
    )  # fmt: skip
    of_export = ("module",)
    for flag in of_import if exports else of_export:
        if getattr(options, flag) is not None:
            what = "exporting a run" if exports else "reading a weights file"
            raise UserError(f"--{flag} has no effect in {what}: leave it out")
    if not exports and options.which != "latest":
        raise UserError("--which chooses a checkpoint of a run to export: leave it out")


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
    if os.path.isdir(os.path.expanduser(options.source)):
        raise UserError(
            f"SOURCE {source} is a directory: give a weights file, or write the network of a run "
            "with --to-safetensors or --to-stablehlo"
        )
    names = class_names.read(options.class_names) if options.class_names else []
    seed = options.seed or 0
    _check_numbers(options, seed)
    is_installed = options.source == imagenet.NAME  # the weights of the extra pretrained
    file = imported.read_file(
        imagenet.weights_file() if is_installed else options.source,
        imagenet.NAME if is_installed else options.model,
        num_classes=options.num_classes,
        image_size=options.image_size,
        resize=options.resize,
        key=jax.random.key(seed),
    )
    known = imagenet.class_names() if is_installed else file.class_names
    if not names and len(known) == file.num_classes:
        names = list(known)
    description = imported.describe(file, class_names=names, mean=options.mean, std=options.std)
    loaded = file.loaded
    imported.create(destination, loaded.variables, description, pathlib.Path(options.source).name)
    if loaded.new_head:
        log(
            f"The classifier in the file has {loaded.classes:,} classes: a new one for "
            f"{file.num_classes:,} classes is initialized (seed {seed})"
        )
    title = pretrained.family(file.module).title(file.module)
    log(f"{destination}: {title} with {file.num_classes:,} classes from {source}")


def _check_free(destination: str | os.PathLike[str], *, is_file: bool = False) -> pathlib.Path:
    """Check that a new folder or file can be made, and return its path. It may be an empty folder."""
    path = paths.parse(destination)
    if paths.scheme(path):
        raise UserError(
            f"DEST must be a local path, got {path}: write it here, and copy it when it is complete"
        )
    # Without "..": its name is that of what is written.
    path = paths.reachable(os.path.abspath(path))
    try:
        is_empty = not is_file and path.is_dir() and not any(path.iterdir())
    except OSError as error:
        raise UserError(f"DEST {path} cannot be read ({error.strerror}): choose another") from error
    if os.path.lexists(path) and (path.is_symlink() or not is_empty):
        raise UserError(f"DEST {path} exists already: choose another, or delete it")
    return path


def _check_numbers(options: argparse.Namespace, seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed must be within 0..{2**32 - 1}, got {seed}: change it")
    for name, smallest in (("mean", 0.0), ("std", 0.1)):
        if any(not smallest <= value <= 255 for value in getattr(options, name) or ()):
            raise UserError(
                f"--{name} must be within {smallest}..255, as pixels are, got {getattr(options, name)}: "
                "multiply numbers for pixels in 0..1 by 255"
            )
    if is_of_unit_range(options.mean or (), options.std or ()):
        raise UserError(
            f"--mean must be in 0..255, got {options.mean}, as for pixels in 0..1: multiply it by 255, and "
            "--std too"
        )
