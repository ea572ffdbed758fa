"""Figures from the command line: ``at-jax figures maps|gradients|mappings|curves``."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from at_jax import paths
from at_jax.data.files import reading
from at_jax.errors import UserError
from at_jax.figures import (
    arguments,
    attention,
    curves,
    images,
    network_figures,
    networks,
    pairing,
    samples,
    style,
    teachers,
)
from at_jax.figures.networks import Network
from at_jax.training import class_names
from at_jax.training.components import imports
from at_jax.training.files import run_files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["main"]

_MOST_IMAGES = 100  # one row each


def main(argv: Sequence[str] | None = None) -> int:
    """Draw one figure. A UserError is printed as one line, with exit code 2."""
    args = arguments.parser().parse_args(argv)
    try:
        _check_out(args.out)
        imports.packages(args.module)
        with style.context():
            figure = _curves(args.runs) if args.command == "curves" else _network_figure(args)
            style.save(figure, args.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(args.out)
    return 0


def _curves(workdirs: Sequence[str]) -> "Figure":
    runs = [curves.read(workdir) for workdir in workdirs]
    places = [run.workdir for run in runs]
    if again := next((run.workdir for run in runs if places.count(run.workdir) > 1), None):
        raise UserError(f"each run is drawn once, got {again} twice: leave one out")
    return curves.draw(runs)


def _network_figure(args: argparse.Namespace) -> "Figure":
    """Draw maps, gradients or mappings."""
    if args.command == "maps":
        attention.check_kind(args.kind, args.p)
    shown = _networks(args)
    chosen = _images(args, shown)
    what, points = shown[0].model_name, ()
    if args.workdir:
        workdir = paths.parse(args.workdir)
        what += f" ({networks.title_of(workdir)})"
        config = run_files.read_config(workdir)
        points = tuple(config["transfer"]["points"])
        # Weights that a student started from need the data set of the run to be loaded.
        is_random = not config["init"]["weights"]
        if is_random and not args.compare and args.command != "mappings":
            shown.insert(1, networks.before_training(shown[0], config["seed"]))
    if args.command == "mappings":
        return network_figures.mapping_figure(shown, chosen, title=f"Four mappings of {what}")
    if args.command == "gradients":
        return network_figures.gradient_figure(shown, chosen, title=f"Input gradients of {what}")
    title = f"Attention maps of {what}"
    given = {"points": points, "kind": args.kind, "p": args.p, "title": title}
    return network_figures.attention_grid(shown, chosen, **given).draw()


def _networks(args: argparse.Namespace) -> list[Network]:
    """Load the networks that are drawn, the student first."""
    given = [flag for flag in ("workdir", "weights", "network") if getattr(args, flag)]
    if len(given) != 1:
        raise UserError(
            "expected a run or pretrained weights, got "
            f"{' and '.join(f'--{flag}' for flag in given) or 'neither'}: pass --workdir, --weights or "
            "--network"
        )
    _check_used(args, given[0])
    names = class_names.read(args.class_names) if args.class_names else []
    if args.weights:
        if not args.images:
            raise UserError("--weights needs images, got none: pass --images")
        shown = [networks.pretrained(args.weights, args.model, args.num_classes, args.image_size)]
    elif args.network:
        shown = [networks.of_imagenet(args.network)]
    else:
        shown = _networks_of_run(args)
    if names:
        wanted = shown[0].description["num_classes"]
        if len(names) != wanted:
            raise UserError(
                f"--class_names: {args.class_names!r} must have {wanted} names, one per line, as "
                f"{shown[0].model_name} has classes, got {len(names)}: choose another file"
            )
        for network in shown:
            if network.description["num_classes"] == wanted:
                network.description["class_names"] = names
    return shown


def _check_used(args: argparse.Namespace, given: str) -> None:
    """Raise for a flag that is for another kind of network than the given one."""
    of_kind = {
        "workdir": ("compare", "module", "data_dir"),
        "weights": ("model", "num_classes", "image_size"),
        "network": (),
    }
    for kind, flags in of_kind.items():
        for flag in flags:
            if kind != given and getattr(args, flag):
                raise UserError(f"--{flag} is for --{kind}, got --{given}: leave it out")
    if given != "workdir" and args.which != "latest":
        raise UserError(f"--which is for --workdir, got --{given}: leave it out")


def _networks_of_run(args: argparse.Namespace) -> list[Network]:
    """Student, compared student and teacher, with the transfer points of the run."""
    config = run_files.read_config(paths.parse(args.workdir))
    pairs = pairing.pairs(config["transfer"]["points"], (), ())
    of_student, of_teacher = [s for s, _ in pairs], [t for _, t in pairs]
    load = {"which": args.which, "module": args.module}
    teacher = teachers.teacher_of(args.workdir, module=args.module)
    student = networks.of_run(args.workdir, title=networks.STUDENT, **load)
    is_passed = "teacher" in run_files.read_arguments(paths.parse(args.workdir))
    if teacher is None and not is_passed:
        # Without a teacher the network may itself be one: the word student would mislead.
        student = dataclasses.replace(student, title=student.model_name)
    shown = [networks.with_points(student, of_student)]
    if args.compare:
        other = networks.of_run(args.compare, **load)
        if other.model_name != student.model_name:
            other = dataclasses.replace(other, title=f"{other.model_name}, {other.title}")
        shown.append(networks.with_points(other, of_student))
    if teacher is not None:
        shown.append(networks.with_points(teacher, of_teacher))
    elif is_passed:
        print(
            "The teacher was passed as an argument and is not stored: not drawn.", file=sys.stderr
        )
    pairing.check_images(shown)
    return shown


def _images(args: argparse.Namespace, shown: Sequence[Network]) -> images.Images:
    student = shown[0]
    count = 1 if args.command == "mappings" else args.count
    if not 1 <= count <= _MOST_IMAGES:
        raise UserError(
            f"--count must be from 1 to {_MOST_IMAGES}, got {count}: 8 fill a page, and several figures "
            "hold more"
        )
    if given := args.images or (args.network and samples.photographs()):
        files = images.files(given[:1] if args.command == "mappings" else given, count)
        if len(files) > _MOST_IMAGES:
            raise UserError(
                f"--images must name at most {_MOST_IMAGES} files, got {len(files)}: draw several figures, "
                "or choose a smaller --count for directories"
            )
        known = student.description.get("class_names") or ()
        depth = student.description.get("bit_depth", reading.MAX_DEPTH)
        resize = student.description.get("resize", 0)
        options = {"named": given, "bit_depth": depth, "resize": resize}
        return images.from_files(files, student.image_shape, known, **options)
    dataset = images.dataset_of(args.workdir, args.data_dir)
    for network in shown:
        if network.description["num_classes"] == dataset.num_classes:
            network.description.setdefault("class_names", list(dataset.class_names))
    if args.command == "mappings":
        if not 0 <= args.index < len(dataset.test):
            raise UserError(
                f"--index must be from 0 to {len(dataset.test) - 1}, got {args.index}: choose another"
            )
        return images.from_split(dataset.test, np.array([args.index]))
    return images.from_split(dataset.test, images.choose(dataset.test.labels, count))


def _check_out(path: str) -> None:
    """Raise before the computation for a file name that cannot be written."""
    if not path.lower().endswith(".png"):
        raise UserError(f"--out must end in .png, got {path!r}: choose another name")
    paths.reachable(path)
