"""What double backprop costs: the training step of every method, in one interleaved run.

    python -m benchmarks.double_backprop                                  WRN-16-1 from WRN-16-2, batch 128
    python -m benchmarks.double_backprop --pair="resnet_18<-resnet_34" --image_size=224 --batch=64
    python -m benchmarks.double_backprop --torch                          the same rows in PyTorch beside

Rounds go through all rows in turn, so that a machine that slows down slows all of them. Writes
double_backprop.json, .md and .png under --out. PyTorch is not among the requirements: install it for
--torch. Columns are explained under the table.
"""

import os
import pathlib
import sys
import time
from typing import Any

from absl import app, flags, logging

_PAIR = flags.DEFINE_string("pair", "wrn_16_1<-wrn_16_2", "Student and teacher.")
_BATCH = flags.DEFINE_integer("batch", 128, "Images a step, over all devices.", lower_bound=1)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 32, "Pixels a side.", lower_bound=8)
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "Of the networks' arithmetic."
)
_DEVICES = flags.DEFINE_integer(
    "devices", 1, "Devices that share a batch; on CPU virtual ones are made.", lower_bound=1
)
_STEPS = flags.DEFINE_integer("steps", 2, "Steps timed at a time.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 10, "Times that each row is timed.", lower_bound=1)
_METHODS = flags.DEFINE_list("methods", [], "Rows to run; empty: all. none is always there.")
_TORCH = flags.DEFINE_bool("torch", False, "Time the same rows in PyTorch, in the same run.")
_OUT = flags.DEFINE_string("out", "runs/double_backprop", "Where the results are written.")


def _setting():
    """The flags, checked before anything compiles."""
    import jax

    from at_jax import pairing, parallel
    from benchmarks.double_backprop.programs import Setting

    jax.config.update("jax_num_cpu_devices", _DEVICES.value)
    student, arrow, teacher = (part.strip() for part in _PAIR.value.partition("<-"))
    if not (student and arrow and teacher):
        raise ValueError(
            f"--pair must be student<-teacher, got {_PAIR.value!r}: for example wrn_16_1<-wrn_16_2"
        )
    if _BATCH.value % _DEVICES.value:
        raise ValueError(
            f"--batch must be a multiple of --devices={_DEVICES.value}, got {_BATCH.value}"
        )
    devices = parallel.devices(_DEVICES.value, _BATCH.value)
    setting = Setting(student, teacher, _IMAGE_SIZE.value, _BATCH.value, _DTYPE.value, devices)
    for name in (student, teacher):  # what cannot be built, or not at this size, says so here
        pairing.shapes(setting.module(name), (setting.image_size, setting.image_size, 3))
    return setting


def _rows(setting) -> list[str]:
    """The rows that are asked for; of all of them, those that this pair can have."""
    from benchmarks.double_backprop.programs import ROWS, objective_of

    wanted = [row.strip() for row in _METHODS.value]
    if unknown := [row for row in wanted if row not in ROWS]:
        raise ValueError(
            f"--methods must be among {', '.join(ROWS)}, got {unknown[0]!r}: separate them by commas"
        )
    rows = ["none"]
    objective_of("none", setting)
    for row in wanted or ROWS:
        try:
            objective_of(row, setting)
        except ValueError as error:
            if wanted:
                raise
            print(f"without {row}: {error}", flush=True)
        else:
            rows.append(row)
    return list(dict.fromkeys(rows))


def main(_: list[str]) -> None:
    """Compile every row, time all of them in turn, write the results."""
    logging.set_verbosity(logging.WARNING)
    if _TORCH.value:  # both need room on a GPU
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        from benchmarks.double_backprop import results

        setting = _setting()
        rows, rivals = _rows(setting), _pytorch(setting)
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    contenders = _contenders(setting, rows, rivals)
    samples: dict[tuple[str, str], list[float]] = {key: [] for key in contenders}
    for round_ in range(_ROUNDS.value):
        began = time.perf_counter()
        for key, program in contenders.items():
            program(1)  # untimed: after another program's, a step finds caches and memory cold
            samples[key].append(program(_STEPS.value) / _STEPS.value)
        print(
            f"round {round_ + 1} of {_ROUNDS.value}: {time.perf_counter() - began:.0f} s",
            flush=True,
        )
    record = results.record(setting, contenders, samples, _STEPS.value)
    table = results.write(record, pathlib.Path(_OUT.value))
    print(f"\n{table}\nwritten to {_OUT.value}")


def _pytorch(setting):
    """The module of the rows in PyTorch, or None."""
    if not _TORCH.value:
        return None
    # Virtual devices are the same cores, all of which PyTorch uses too.
    if len(setting.devices) > 1 and setting.devices[0].platform != "cpu":
        raise ValueError(
            f"--torch compares one device, got --devices={_DEVICES.value}: leave one of them out"
        )
    try:
        import torch

        from benchmarks.double_backprop import rivals
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--torch needs PyTorch, got {error}: pip install torch, or leave the flag out"
        ) from error
    if setting.devices[0].platform != "cpu" and not torch.cuda.is_available():
        raise ValueError(
            f"--torch needs a PyTorch that sees the GPU, got {torch.__version__}: install one for CUDA, "
            "or leave the flag out"
        )
    return rivals


def _parse(argv: list[str]) -> list[str]:
    """A flag that cannot be read ends as every other bad input does: a line, and code 2."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)


def _contenders(setting, rows: list[str], rivals) -> dict[tuple[str, str], Any]:
    """(who, row) -> program, ready to run: JAX first, then PyTorch's variants."""
    from benchmarks.double_backprop.programs import Program

    variables = {
        "student": setting.variables(setting.student, 0),
        "teacher": setting.variables(setting.teacher, 1),
    }
    contenders = {}
    for row in rows:
        program = Program(row, setting, variables)
        print(f"{row}: compiled in {program.compile_seconds:.1f} s", flush=True)
        contenders["JAX", row] = program
    if rivals is not None:
        expected = {row: contenders["JAX", row].loss for row in rows}
        contenders |= rivals.build(setting, rows, variables, expected)
    return contenders


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
