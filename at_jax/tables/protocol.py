"""The CIFAR-100 protocol that papers on distillation share: its pairs of networks, and published results.

Source: the table of pairs of the same architectural type in the README of RepDistiller, the code of Tian,
Krishnan and Isola (arXiv:1910.10699). The README prints accuracies, of the last epoch as a comment in its
code says; errors here are 100 minus them.
"""

import functools

from at_jax.tables.paper import PaperResult, Source
from at_jax.tables.rows import Row, Table
from at_jax.training.config_files import load

__all__ = ["METHODS", "POINTS", "QUOTED", "RESULTS", "SOURCE", "TEACHERS", "table"]

QUOTED = "quoted"
SOURCE = Source("the README of RepDistiller (100 minus the accuracies there)", "RepDistiller")
METHODS = ("none", "kd", "at")


def _error(accuracy: float) -> PaperResult:
    return PaperResult(round(100 - accuracy, 2), QUOTED)


def _row(*accuracies: float) -> dict[str, PaperResult]:
    return dict(zip(METHODS, map(_error, accuracies), strict=True))


# (student, teacher) -> method -> result.
RESULTS: dict[tuple[str, str], dict[str, PaperResult]] = {
    ("wrn_16_2", "wrn_40_2"): _row(73.26, 74.92, 74.08),
    ("wrn_40_1", "wrn_40_2"): _row(71.98, 73.54, 72.77),
    ("cifar_resnet_20", "cifar_resnet_56"): _row(69.06, 70.66, 70.55),
    ("cifar_resnet_20", "cifar_resnet_110"): _row(69.06, 70.67, 70.22),
    ("cifar_resnet_32", "cifar_resnet_110"): _row(71.14, 73.08, 72.31),
    ("cifar_resnet_8x4", "cifar_resnet_32x4"): _row(72.50, 73.33, 73.44),
    ("vgg_8", "vgg_13"): _row(70.36, 72.98, 71.43),
}
TEACHERS: dict[str, PaperResult] = {
    "wrn_40_2": _error(75.61),
    "cifar_resnet_56": _error(72.34),
    "cifar_resnet_110": _error(74.31),
    "cifar_resnet_32x4": _error(79.42),
    "vgg_13": _error(74.64),
}
# Student -> transfer points, where they are not all taps: the protocol leaves out the first stage of a VGG.
POINTS: dict[str, tuple[str, ...]] = {
    "vgg_8": tuple(f"stage{stage}<-stage{stage}" for stage in range(2, 6)),
}


def table() -> Table:
    """The table: labels only, distillation and attention transfer for each pair."""
    rows = []
    for (student, teacher), results in RESULTS.items():
        points = POINTS.get(student)
        for method in METHODS:
            changes = {"transfer.points": points} if points and method == "at" else {}
            rows.append(Row(student, teacher, method, changes, paper=results[method]))
    return Table(
        "The CIFAR-100 protocol of RepDistiller and mdistiller",
        functools.partial(load, "cifar100_protocol"),
        tuple(rows),
        TEACHERS,
        paper_epochs=240,
        source=SOURCE,
    )
