"""Cost of double backpropagation: times the training step of every method in one interleaved run.

    python -m benchmarks.double_backprop                                  WRN-16-1 from WRN-16-2, batch 128
    python -m benchmarks.double_backprop --pair="resnet_18<-resnet_34" --image_size=224 --batch=64
    python -m benchmarks.double_backprop --torch                          the same rows in PyTorch as well

Each round times every row once, so that a machine that slows down affects all rows alike. Writes
double_backprop.json, .md and .png to --out; the table explains its columns. --torch needs PyTorch, which
is not in requirements.txt.
"""

import difflib
import os
import pathlib
import time
from typing import Any

from absl import flags

from at_jax.errors import UserError, listed
from benchmarks import command

_PAIR = flags.DEFINE_string("pair", "wrn_16_1<-wrn_16_2", "Student and teacher.")
_BATCH = flags.DEFINE_integer("batch", 128, "Images per step, over all devices.", lower_bound=1)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", 32, "Height and width of the images, in pixels.", lower_bound=8
)
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "Arithmetic of the networks."
)
_DEVICES = flags.DEFINE_integer(
    "devices", 1, "Devices to split a batch over; on CPU, virtual devices.", lower_bound=1
)
_STEPS = flags.DEFINE_integer("steps", 2, "Steps per timing.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 10, "Timings of each row.", lower_bound=1)
_METHODS = flags.DEFINE_list(
    "methods", [], "Rows to time, separated by commas; empty: all. The row none is always timed."
)
_TORCH = flags.DEFINE_bool("torch", False, "Time the same rows in PyTorch, in the same run.")
_OUT = flags.DEFINE_string("out", "runs/double_backprop", "Folder of the results.")


def main() -> None:
    """Compile every row, time all rows in turn, and write the results."""
    if _TORCH.value:  # JAX and PyTorch share the memory of a GPU
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from benchmarks.double_backprop import results

    setting = _setting()
    rows, pytorch_rows = _rows(setting), _pytorch_rows(setting)
    programs = _programs(setting, rows, pytorch_rows)
    samples: dict[tuple[str, str], list[results.Sample]] = {key: [] for key in programs}
    for round_ in range(_ROUNDS.value):
        began = time.perf_counter()
        for key, program in programs.items():
            program(1)  # not timed: the previous program leaves caches and memory cold
            cpu_began = time.process_time()
            seconds = program(_STEPS.value)
            cpu_seconds = time.process_time() - cpu_began
            samples[key].append(results.Sample(seconds / _STEPS.value, cpu_seconds / _STEPS.value))
        print(
            f"round {round_ + 1} of {_ROUNDS.value}: {time.perf_counter() - began:.0f} s",
            flush=True,
        )
    record = results.record(setting, programs, samples, _STEPS.value)
    table = results.write(record, pathlib.Path(_OUT.value))
    print(f"\n{table}\nResults written to {_OUT.value}")


def _setting() -> Any:
    """Check the flags before anything compiles."""
    import jax

    from at_jax.distributed import devices
    from benchmarks.double_backprop.setting import Setting, split_pair

    jax.config.update("jax_num_cpu_devices", _DEVICES.value)
    student, teacher = split_pair(_PAIR.value)
    if _BATCH.value % _DEVICES.value:
        raise UserError(
            f"--batch must be a multiple of --devices={_DEVICES.value}, got {_BATCH.value}: change one "
            "of them"
        )
    selected = devices.select(_DEVICES.value, _BATCH.value)
    setting = Setting(student, teacher, _IMAGE_SIZE.value, _BATCH.value, _DTYPE.value, selected)
    for name, whose in ((student, "student"), (teacher, "teacher")):
        setting.taps(name, whose)  # raises for an unknown network, or too small images
    return setting


def _rows(setting: Any) -> list[str]:
    """Rows that were asked for; without --methods all rows that this pair can have."""
    from benchmarks.double_backprop.programs import ROWS, objective_of

    wanted = [row.strip() for row in _METHODS.value]
    if unknown := [row for row in wanted if row not in ROWS]:
        close = difflib.get_close_matches(unknown[0], ROWS, n=1)
        hint = f"did you mean {close[0]}?" if close else "separate rows by commas"
        raise UserError(f"--methods must be among {listed(ROWS)}, got {unknown[0]!r}: {hint}")
    rows = ["none"]
    for row in wanted or ROWS:
        try:
            objective_of(row, setting)
        except UserError as error:
            if wanted:
                raise
            print(f"{row} is left out: {error}", flush=True)
        else:
            rows.append(row)
    return list(dict.fromkeys(rows))


def _pytorch_rows(setting: Any) -> Any:
    """The module that builds the rows in PyTorch; None without --torch."""
    if not _TORCH.value:
        return None
    on_cpu = setting.devices[0].platform == "cpu"
    # Virtual devices share the cores of the CPU, all of which PyTorch uses too.
    if len(setting.devices) > 1 and not on_cpu:
        raise UserError(
            f"--torch compares one device, got --devices={_DEVICES.value}: leave one of them out"
        )
    try:
        import torch

        from benchmarks.double_backprop import pytorch_networks, pytorch_rows
    except ModuleNotFoundError as error:
        raise UserError(
            f"--torch needs PyTorch, got {error}: pip install torch, or leave the flag out"
        ) from error
    if not on_cpu and not torch.cuda.is_available():
        raise UserError(
            f"--torch needs a PyTorch that sees the GPU, got {torch.__version__}: install one for CUDA, "
            "or leave the flag out"
        )
    for name in (setting.student, setting.teacher):
        if name.split("_")[0] not in pytorch_networks.FAMILIES:
            raise UserError(
                f"--torch needs networks of the families {listed(pytorch_networks.FAMILIES)}, got {name}: "
                "choose another pair, or leave the flag out"
            )
    return pytorch_rows


def _programs(setting: Any, rows: list[str], pytorch_rows: Any) -> dict[tuple[str, str], Any]:
    """(implementation, row) to program, ready to run: JAX first, then the variants of PyTorch."""
    from benchmarks.double_backprop.programs import Program
    from benchmarks.double_backprop.results import JAX

    variables = {
        "student": setting.variables(setting.student, 0),
        "teacher": setting.variables(setting.teacher, 1),
    }
    programs: dict[tuple[str, str], Any] = {}
    for row in rows:
        program = Program(row, setting, variables)
        print(f"{row}: compiled in {program.compile_seconds:.1f} s", flush=True)
        programs[JAX, row] = program
    if pytorch_rows is not None:
        expected = {row: programs[JAX, row].loss for row in rows}
        programs |= pytorch_rows.build(setting, rows, variables, expected)
    return programs


if __name__ == "__main__":
    command.run(main)
