"""The rows in PyTorch, on the weights and images of JAX: eager in both layouts, and compiled."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.double_backprop import programs, pytorch
from benchmarks.double_backprop.setting import Setting

__all__ = ["build"]


def build(
    setting: Setting,
    rows: Sequence[str],
    variables: Mapping[str, Any],
    expected: Mapping[str, float],
) -> dict[tuple[str, str], pytorch.Program]:
    """Build every row that PyTorch can run.

    Args:
      setting: of the run.
      rows: of JAX. Other modes, and terms that are not written in PyTorch, are left out.
      variables: ``"student"`` and ``"teacher"``.
      expected: row to the loss of JAX's first step, which PyTorch's must equal.

    Returns:
      (implementation, row) to program.

    Raises:
      RuntimeError: if a loss differs.
    """
    images, labels = setting.images()
    on_cpu = setting.devices[0].platform == "cpu"
    shared = {
        "student": setting.student,
        "teacher": setting.teacher,
        "student_variables": variables["student"],
        "teacher_variables": variables["teacher"],
        "images": images,
        "labels": labels,
        "weights": programs.WEIGHTS,
        "dtype": setting.dtype,
        "device": "cpu" if on_cpu else "cuda",
        "lr": programs.OPTIMIZER["learning_rate"],
        "momentum": programs.OPTIMIZER["momentum"],
        "weight_decay": programs.OPTIMIZER["weight_decay"],
    }
    variants = [(f"PyTorch eager {layout}", layout, False) for layout in pytorch.LAYOUTS]
    variants.append(("PyTorch compiled", "channels_last", True))
    # The losses of the first step differ by rounding, which is coarser in TF32 and bfloat16.
    tolerance = 1e-3 if setting.dtype == "float32" and on_cpu else 0.05
    built = {}
    for row in filter(pytorch.has_row, rows):
        for name, layout, compiled in variants:
            try:
                program = pytorch.program(row=row, layout=layout, compiled=compiled, **shared)
            except Exception as error:  # the compiler's own errors, of any type
                if not compiled:
                    raise
                first_line = (str(error).strip() or repr(error)).splitlines()[0]
                print(f"{name} cannot run {row}: {first_line}", flush=True)
                continue
            if not abs(program.loss - expected[row]) <= tolerance * abs(expected[row]):
                raise RuntimeError(
                    f"{name} has another loss for {row}: {program.loss:.6g}, JAX {expected[row]:.6g}"
                )
            built[name, row] = program
            print(f"{name}: {row} has the same loss, {program.loss:.6g}", flush=True)
    return built
