"""Flags of ``at-jax figures``."""

import argparse

from at_jax.figures import attention
from at_jax.parser import Parser

__all__ = ["parser"]

_EXAMPLES = """examples:
  at-jax figures maps --workdir runs/digits --out maps.png
  at-jax figures maps --workdir runs/digits --compare runs/digits-method=none --out maps.png
  at-jax figures gradients --workdir runs/digits --images cat.jpg dog.jpg --out j.png
  at-jax figures mappings --weights resnet18.safetensors --images cat.jpg --out four.png
  at-jax figures maps --weights resnet18.safetensors --class_names list.txt --images a.jpg --out a.png
  at-jax figures maps --network efficientnet_lite0 --out photographs.png
  at-jax figures curves runs/digits runs/digits-method=none --out curves.png
"""
_COMMANDS = {
    "maps": "attention maps at every transfer point, one row per image",
    "gradients": "input gradient |J| of the loss, summed over channels",
    "mappings": "F_sum, F_sum^2, F_sum^4 and F_max of one image, side by side",
    "curves": "loss terms and errors over the epochs, one line per run",
}


def parser() -> argparse.ArgumentParser:
    """Parser of the command and its four subcommands."""
    result = Parser(
        prog="at-jax figures",
        description="Draw attention maps, input gradients and training curves, as PNG.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = result.add_subparsers(dest="command", required=True, metavar="|".join(_COMMANDS))
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--out", required=True, metavar="FILE.png", help="output file")
        if name == "curves":
            command.add_argument("runs", nargs="+", metavar="RUN", help="workdirs of runs")
            command.add_argument(
                "--module", metavar="PACKAGE:NAME", help="term that runs were trained with"
            )
        else:
            _add_options(command, name)
    return result


def _add_options(command: argparse.ArgumentParser, name: str) -> None:
    add = command.add_argument
    add("--workdir", metavar="RUN", help="draw the student of this run, next to its teacher")
    add("--compare", metavar="RUN2", help="draw this run's student instead of the untrained one")
    add("--which", choices=("latest", "best"), default="latest", help="checkpoint (%(default)s)")
    add("--module", metavar="PACKAGE:NAME",
        help="user-defined module that the run trained; several, separated by commas")  # fmt: skip
    add("--weights", metavar="FILE",
        help="instead of a run: PyTorch weights (.safetensors, .pth)")  # fmt: skip
    add("--network", choices=("efficientnet_lite0",),
        help="instead of a run: a network with ImageNet weights from the extra pretrained; default "
        "images: photographs from scikit-learn and matplotlib")  # fmt: skip
    add("--model", default="", help="with --weights: its network (of the file, or resnet_18)")
    add("--num_classes", type=int, help="with --weights (default: of the file)")
    add(
        "--image_size",
        type=int,
        help="with --weights, in pixels (default: of the file or the network)",
    )
    add("--data_dir", default="", metavar="DIR",
        help="directory of the run's images (default: as in the run)")  # fmt: skip
    add(
        "--images",
        nargs="+",
        metavar="FILE",
        help="photographs of any size, or directories of them; default: test images",
    )
    add("--class_names", metavar="FILE", help="text file of class names, one per line")
    if name == "mappings":
        add("--index", type=int, default=0, help="index of the test image (%(default)s)")
    else:
        add(
            "--count",
            type=int,
            default=8,
            help="number of test images, or of images from each directory (%(default)s)",
        )
    if name == "maps":
        kinds = tuple(attention.KINDS)
        add("--kind", choices=kinds, default="sum", help="over channels (%(default)s)")
        add("--p", type=float, default=2, help="exponent of |activation| (%(default)s)")
