"""The rows in PyTorch, on the same weights and images as in JAX: eager in both layouts, and compiled."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.double_backprop import programs, pytorch


def build(
    setting: programs.Setting,
    rows: Sequence[str],
    variables: Mapping[str, Any],
    expected: Mapping[str, float],
) -> dict[tuple[str, str], pytorch.Program]:
    """Every row that PyTorch can run.

    Args:
      setting: of the run.
      rows: of JAX; other ways to differentiate the same loss have no counterpart.
      variables: ``"student"`` and ``"teacher"``.
      expected: row -> the loss of JAX's first step, which PyTorch's must equal.

    Returns:
      (who, row) -> program.

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
    # Rounding alone may part the losses of the first step; of TF32 and bfloat16 there is more of it.
    exact = setting.dtype == "float32" and shared["device"] == "cpu"
    tolerance = 1e-3 if exact else 0.05
    rivals = {}
    for row in (row for row in rows if not programs.split(row)[1]):
        for who, layout, compiled in variants:
            try:
                program = pytorch.program(row=row, layout=layout, compiled=compiled, **shared)
            except Exception as error:  # whatever the compiler raises: the row goes without it
                if not compiled:
                    raise
                print(
                    f"{who} cannot run {row}: {(str(error).strip() or repr(error)).splitlines()[0]}",
                    flush=True,
                )
                continue
            if not abs(program.loss - expected[row]) <= tolerance * abs(expected[row]):
                raise RuntimeError(
                    f"{who} takes another loss for {row}: {program.loss:.6g}, JAX {expected[row]:.6g}"
                )
            rivals[who, row] = program
            print(f"{who}: {row} has the same loss, {program.loss:.6g}", flush=True)
    return rivals
