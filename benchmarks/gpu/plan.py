"""The rows of the GPU benchmark, most important first."""

import functools
from typing import Any, NamedTuple

from benchmarks.gpu import convolutions, loops, steps, timing
from benchmarks.gpu.record import Row

__all__ = ["FULL", "TINY", "Sizes", "rows"]


class Sizes(NamedTuple):
    """Measurements to make.

    Attributes:
      pairs: (student, teacher, pixels, batch) whose steps are measured.
      networks: (network, pixels, batch) whose convolutions are measured.
      methods: of the steps.
      precisions: of the steps.
      per_dispatch: numbers of steps in one program.
      epoch: student, images, batch, pixels, steps per dispatch.
      together: student, teacher, pixels, batch, students.
      repeats: calls of a round.
    """

    pairs: tuple[tuple[str, str, int, int], ...]
    networks: tuple[tuple[str, int, int], ...]
    methods: tuple[str, ...]
    precisions: tuple[str, ...]
    per_dispatch: tuple[int, ...]
    epoch: tuple[str, int, int, int, int]
    together: tuple[str, str, int, int, int]
    repeats: int


FULL = Sizes(
    pairs=(("wrn_16_1", "wrn_16_2", 32, 128), ("resnet_18", "resnet_34", 224, 128)),
    networks=(("wrn_16_1", 32, 128), ("resnet_18", 224, 128), ("mobilenet_v2_0.5", 32, 128)),
    methods=("none", "at+kd", "gradient_at"),
    precisions=("TF32", "bfloat16", "float32"),
    per_dispatch=(1, 10),
    epoch=("wrn_16_1", 50_000, 128, 32, 10),
    together=("wrn_16_1", "wrn_16_2", 32, 128, 4),
    repeats=10,
)
TINY = Sizes(
    pairs=(("wrn_10_0.25", "wrn_10_0.25", 8, 4),),
    networks=(("wrn_10_0.25", 8, 4),),
    methods=("gradient_at",),
    precisions=("float32",),
    per_dispatch=(1, 2),
    epoch=("wrn_10_0.25", 32, 4, 8, 2),
    together=("wrn_10_0.25", "wrn_10_0.25", 8, 4, 2),
    repeats=2,
)


def rows(sizes: Sizes) -> list[Row]:
    """All rows; those of PyTorch only where it is installed."""
    found = [row for pair in sizes.pairs for row in _steps(pair, sizes, sizes.precisions[:1])]
    layers: dict[Any, None] = {}
    for network in sizes.networks:
        layers |= dict.fromkeys(convolutions.layers(*network))
    for layer in layers:
        prepare = functools.partial(convolutions.prepare, layer, sizes.repeats)
        found.append(Row("convolutions", str(layer), prepare))
    found += _loops(sizes)
    for pair in sizes.pairs:
        found += _steps(pair, sizes, sizes.precisions[1:])
    # Compiling PyTorch's double backward takes longest, and says least.
    return sorted(found, key=lambda row: row.name.endswith("torch.compile"))


def _steps(pair: tuple[str, str, int, int], sizes: Sizes, precisions: tuple[str, ...]) -> list[Row]:
    found = []
    for precision in precisions:
        for method in sizes.methods:
            case = steps.Case(*pair, method, precision)
            for count in sizes.per_dispatch:
                prepare = functools.partial(
                    steps.prepare, case, count, max(sizes.repeats // count, 1)
                )
                name = f"{case}; at_jax, {count} step{'s' if count > 1 else ''} per dispatch"
                found.append(Row("steps", name, prepare))
            if timing.has_torch():
                for compiled, name in ((False, "PyTorch eager"), (True, "torch.compile")):
                    prepare = functools.partial(steps.prepare_torch, case, compiled, sizes.repeats)
                    found.append(Row("steps", f"{case}; {name}", prepare))
    return found


def _loops(sizes: Sizes) -> list[Row]:
    student, examples, batch, size, per_dispatch = sizes.epoch
    name = f"{student}, {examples} images of {size} px, batch {batch}, {per_dispatch} per dispatch"
    student, teacher, _, batch, count = sizes.together
    several = f"{count} students {student} <- {teacher}, at+kd, batch {batch}"
    return [
        Row("epoch", name, functools.partial(loops.prepare_epoch, *sizes.epoch)),
        Row(
            "together",
            several,
            functools.partial(loops.prepare_together, *sizes.together, sizes.repeats),
        ),
    ]
