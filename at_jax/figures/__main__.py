"""Pictures from the command line: ``python -m at_jax.figures maps|gradients|mappings|curves``."""

import argparse
import pathlib
import sys
from typing import Any, NoReturn

import ml_collections
import numpy as np

from at_jax import inputs, report
from at_jax.figures import attention, canvas, curves, networks, pictures, views

EXAMPLES = """examples:
  python -m at_jax.figures maps --workdir runs/digits --out maps.png
  python -m at_jax.figures maps --workdir runs/digits --compare runs/digits-method=none --out maps.png
  python -m at_jax.figures gradients --workdir runs/digits --images cat.jpg dog.jpg --out j.png
  python -m at_jax.figures mappings --weights resnet18.safetensors --images cat.jpg --out four.png
  python -m at_jax.figures curves runs/digits runs/digits-method=none --out curves.png
"""
_WHAT = {
    "maps": "attention maps at every transfer point, a row an image",
    "gradients": "|J| summed over channels: where the loss is sensitive",
    "mappings": "F_sum, F_sum^2, F_sum^4 and F_max of one image side by side",
    "curves": "losses term by term and errors over the epochs, a line a run",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"error: {message}: see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def main(argv: list[str] | None = None) -> int:
    """Draw what is asked for; what is wrong with the request is one line and exit code 2."""
    args = _parser().parse_args(argv)
    try:
        _check_out(args.out)
        with canvas.style():
            if args.what == "curves":
                figure = curves.draw([curves.read(run) for run in args.runs])
            else:
                figure = _grid(args)
            canvas.save(figure, args.out, photographs=args.what != "curves")
    except (ValueError, ModuleNotFoundError) as error:
        if not report.is_ours(error):
            raise  # a fault of the program: its traceback is what helps
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(args.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m at_jax.figures",
        description="Draw what networks look at and how runs went, as PNG.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="what", required=True, metavar="|".join(_WHAT))
    for name, text in _WHAT.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--out", required=True, metavar="FILE.png", help="what is written")
        if name == "curves":
            command.add_argument("runs", nargs="+", metavar="RUN", help="workdirs of runs")
        else:
            _add_options(command, name)
    return parser


def _add_options(command: argparse.ArgumentParser, name: str) -> None:
    add = command.add_argument
    add("--workdir", metavar="RUN", help="of the run whose student is drawn, beside its teacher")
    add("--compare", metavar="RUN2", help="this run's student stands there for the untrained one")
    add("--which", choices=("latest", "best"), default="latest", help="checkpoint")
    add("--weights", metavar="FILE", help="in place of a run: a pretrained ResNet's .safetensors")
    add("--model", default="resnet_18", help="with --weights: its network (%(default)s)")
    add("--num_classes", type=int, default=1000, help="with --weights (%(default)s)")
    add("--image_size", type=int, default=224, help="with --weights: pixels a side (%(default)s)")
    add("--images", nargs="+", metavar="FILE", help="photographs of any size; default: test images")
    add(
        "--classes", metavar="FILE", help="names of the classes, a line each, where no run has them"
    )
    if name == "mappings":
        add("--index", type=int, default=0, help="of the test image (%(default)s)")
    else:
        add("--count", type=int, default=8, help="test images, a class in turn (%(default)s)")
    if name == "maps":
        add(
            "--kind",
            choices=tuple(attention.KINDS),
            default="sum",
            help="over channels: %(default)s",
        )
        add("--p", type=float, default=2, help="exponent of |activation| (%(default)s)")


def _grid(args: argparse.Namespace):
    """The figure of maps, gradients or mappings."""
    if args.what == "maps":
        attention.check_kind(args.kind, args.p)
    shown, config = _networks(args)
    chosen = _pictures(args, shown[0], config)
    what = f"{config['student']} ({canvas.label(config['method'])})" if config else shown[0].title
    if args.what == "mappings":
        return views.mappings(shown, chosen, title=f"Four mappings of {what}")
    if config and not args.compare:
        shown.insert(1, networks.before_training(shown[0], config["seed"]))
    if args.what == "gradients":
        return views.gradients(shown, chosen, title=f"Where {what} is sensitive")
    return views.attention(
        shown,
        chosen,
        points=config["transfer"]["points"] if config else (),
        kind=args.kind,
        p=args.p,
        title=f"Where {what} looks",
    )


def _networks(args: argparse.Namespace) -> tuple[list[networks.Network], dict[str, Any] | None]:
    """The student first, and the config of its run."""
    if bool(args.workdir) == bool(args.weights):
        raise ValueError(
            "expected a run or pretrained weights, got "
            f"{'both' if args.workdir else 'neither'}: give --workdir or --weights"
        )
    names = _class_names(args.classes)
    if args.weights:
        if not args.images:
            raise ValueError("--weights come without images, got no --images: give some")
        shown = [networks.pretrained(args.weights, args.model, args.num_classes, args.image_size)]
        config = None
    else:
        config = networks.stored_config(args.workdir)
        student = networks.of_run(args.workdir, which=args.which, title=networks.STUDENT)
        shown = [student]
        if args.compare:
            shown.append(networks.of_run(args.compare, which=args.which))
        if (teacher := networks.teacher_of(args.workdir)) is not None:
            shown.append(teacher)
        networks.check_images(shown)
    if names:
        shown[0].description["class_names"] = names
    return shown, config


def _pictures(args, student: networks.Network, config) -> pictures.Pictures:
    if args.images:
        paths = args.images[:1] if args.what == "mappings" else args.images
        known = student.description.get("class_names") or ()
        return pictures.from_files(paths, student.image_shape, known)
    # Decoded on the way: a few images are wanted, not a data set in memory.
    lazily = {**config, "data": {**config["data"], "memory_limit_mb": 0}}
    dataset = inputs.load_data(ml_collections.ConfigDict(lazily))
    student.description.setdefault("class_names", list(dataset.class_names))
    if args.what == "mappings":
        if not 0 <= args.index < len(dataset.test):
            raise ValueError(
                f"--index must be from 0 to {len(dataset.test) - 1}, got {args.index}: choose another"
            )
        return pictures.from_split(dataset.test, np.array([args.index]))
    if args.count < 1:
        raise ValueError(f"--count must be at least 1, got {args.count}: 8 fill a page")
    return pictures.from_split(dataset.test, pictures.choose(dataset.test.labels, args.count))


def _class_names(path: str | None) -> list[str]:
    if not path:
        return []
    try:
        return pathlib.Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--classes: {path!r} cannot be read ({error}): a name a line") from error


def _check_out(path: str) -> None:
    """Find now what would be found when all is computed."""
    if not path.lower().endswith(".png"):
        raise ValueError(f"--out must end in .png, got {path!r}: choose another name")


if __name__ == "__main__":
    sys.exit(main())
