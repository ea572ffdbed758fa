"""The rows in PyTorch, on the same weights and images as in JAX: eager in both layouts, and compiled."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.double_backprop import programs, pytorch

# The losses of the first step may differ by rounding, and by no more.
_TOLERANCE = 1e-3


class Rival:
    """A row as one variant of PyTorch runs it; ``rival(steps)`` gives seconds."""

    def __init__(self, who: str, row: str, program: pytorch.Program):
        self.who, self.row, self._program = who, row, program

    def __call__(self, steps: int) -> float:
        """Seconds for so many steps."""
        return self._program(steps)


def build(
    setting: programs.Setting,
    rows: Sequence[str],
    variables: Mapping[str, Any],
    expected: Mapping[str, float],
) -> list[Rival]:
    """Every row that PyTorch can run.

    Args:
      setting: of the run.
      rows: of JAX; other ways to differentiate the same loss have no counterpart.
      variables: ``"student"`` and ``"teacher"``.
      expected: row -> the loss of JAX's first step, which PyTorch's must equal.

    Raises:
      RuntimeError: where a loss is another one.
    """
    images, labels = setting.images()
    shared = {
        "student": setting.student,
        "teacher": setting.teacher,
        "student_variables": variables["student"],
        "teacher_variables": variables["teacher"],
        "images": images,
        "labels": labels,
        "weights": programs.WEIGHTS,
        "dtype": setting.dtype,
        "device": "cpu" if setting.devices[0].platform == "cpu" else "cuda",
        "lr": programs.OPTIMIZER["learning_rate"],
        "momentum": programs.OPTIMIZER["momentum"],
        "weight_decay": programs.OPTIMIZER["weight_decay"],
    }
    variants = [(f"PyTorch eager {layout}", layout, False) for layout in pytorch.LAYOUTS]
    variants.append(("PyTorch compiled", "channels_last", True))
    rivals = []
    for row in (row for row in rows if not programs.split(row)[1]):
        for who, layout, compiled in variants:
            try:
                program = pytorch.program(row=row, layout=layout, compiled=compiled, **shared)
            except Exception as error:  # whatever the compiler raises: the row goes without it
                if not compiled:
                    raise
                print(f"{who} cannot run {row}: {str(error).strip().splitlines()[0]}", flush=True)
                continue
            tolerance = _TOLERANCE if setting.dtype == "float32" else 0.05
            if not abs(program.loss - expected[row]) <= tolerance * abs(expected[row]):
                raise RuntimeError(
                    f"{who} takes another loss for {row}: {program.loss:.6g}, JAX {expected[row]:.6g}"
                )
            rivals.append(Rival(who, row, program))
            print(f"{who}: {row} has the same loss, {program.loss:.6g}", flush=True)
    return rivals
