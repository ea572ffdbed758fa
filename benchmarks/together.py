"""Several students of one teacher: in separate programs, in one program, and under ``jax.vmap``.

    python -m benchmarks.together                          4 students WRN-16-1 from WRN-16-2, batch 128
    python -m benchmarks.together --students=2 --method=at+kd --devices=2

- separate: one program for each student.
- unrolled: at_jax.training.step.train_together. The students share the teacher's forward pass.
- vmap: the student is mapped over an axis of seeds, so that its kernels have a batch axis.

All are timed in turn, in one interleaved run. Prints a table with the time of each relative to separate
programs, and the ratio that is predicted from passes over student and teacher.
"""

import functools
import json
import pathlib
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks import command

_STUDENTS = flags.DEFINE_integer("students", 4, "Students of one teacher.", lower_bound=2)
_PAIR = flags.DEFINE_string("pair", "wrn_16_1<-wrn_16_2", "Student and teacher.")
_METHOD = flags.DEFINE_string("method", "at", "Method of all students.")
_BATCH = flags.DEFINE_integer("batch", 128, "Images per step, over all devices.", lower_bound=1)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", 32, "Height and width of the images, in pixels.", lower_bound=8
)
_DEVICES = flags.DEFINE_integer(
    "devices", 1, "Devices to split a batch over; on CPU, virtual devices.", lower_bound=1
)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timings of each.", lower_bound=1)
_VMAP = flags.DEFINE_bool("vmap", True, "Time vmap too.")
_OUT = flags.DEFINE_string("out", "", "JSON file for the result.")


def main() -> None:
    """Compile all programs, time them in turn, and print the table."""
    setting = _setting()
    programs = _programs(setting, _STUDENTS.value)
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for round_ in range(_ROUNDS.value + 1):
        for name, program in programs.items():
            # One compiled program stands for those of all students: they cost the same.
            taken = _time(program, _STUDENTS.value if name == "separate" else 1)
            if round_:  # the first round is a warm-up
                seconds[name].append(taken)
    _report(setting, seconds)


def _setting() -> Any:
    """Check the flags before anything compiles."""
    import jax

    jax.config.update("jax_num_cpu_devices", _DEVICES.value)
    from at_jax.distributed import devices
    from at_jax.terms import parts
    from benchmarks.double_backprop.setting import Setting, split_pair

    student, teacher = split_pair(_PAIR.value)
    parts(_METHOD.value)
    selected = devices.select(_DEVICES.value, _BATCH.value)
    return Setting(student, teacher, _IMAGE_SIZE.value, _BATCH.value, "float32", selected)


def _programs(setting: Any, count: int) -> dict[str, list[Any]]:
    """Name to [compiled step, state, arguments after the state]."""
    import jax
    import numpy as np

    from at_jax.distributed import devices
    from at_jax.training import step
    from at_jax.training.components import optimizers
    from benchmarks.double_backprop import programs

    objective = programs.objective_of(_METHOD.value, setting)
    optimizer = optimizers.sgd(**programs.OPTIMIZER)

    def initial(seed: int) -> Any:
        variables = setting.variables(setting.student, seed)
        return programs.initial_state(objective, setting, variables, optimizer)

    states = jax.device_get(tuple(initial(seed) for seed in range(count)))
    frozen = setting.variables(setting.teacher, 100) if objective.teacher is not None else None
    rest = (*devices.replicate((frozen, jax.random.key(1)), setting.devices), setting.shards())
    student = step.StudentSpec(objective, optimizer, programs.schedules(objective))
    shared: dict[str, Any] = {"prepare": programs.unchanged, "axis_name": devices.AXIS_NAME}
    functions: dict[str, tuple[Any, Any]] = {
        "separate": (functools.partial(step.train_step, **student._asdict(), **shared), states[0]),
        "unrolled": (
            functools.partial(step.train_together, students=(student,) * count, **shared),
            states,
        ),
    }
    if _VMAP.value:
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
        functions["vmap"] = (_mapped(student, count, shared), stacked)
    compiled = {}
    for name, (function, before) in functions.items():
        before = devices.replicate(before, setting.devices)
        mapped: Any = devices.map_train(function, setting.devices)
        began = time.perf_counter()
        program = setting.compile(mapped, before, *rest)
        print(f"{name}: compiled in {time.perf_counter() - began:.0f} s", flush=True)
        compiled[name] = [program, before, rest]
    return compiled


def _mapped(student: Any, count: int, shared: Mapping[str, Any]) -> Any:
    """Training step with students along an axis; teacher and images are shared."""
    import jax

    from at_jax.training import step

    def together(states: Any, teacher_variables: Any, key: Any, batch: Any) -> Any:
        # As in train_together, the teacher is applied once, outside of the mapped function.
        view = student.objective.view_teacher(teacher_variables, batch["image"], batch["label"])

        def one(state: Any) -> Any:
            return step.train_step(state, view, key, batch, **student._asdict(), **shared)

        return jax.vmap(one, axis_size=count)(states)

    return together


def _time(program: list[Any], times: int) -> float:
    """Call a program some times, passing the state on, and return the time in seconds."""
    import jax

    compiled, states, rest = program
    jax.block_until_ready(states)
    began = time.perf_counter()
    for _ in range(times):
        states, _ = compiled(states, *rest)
    jax.block_until_ready(states)
    program[1] = states
    return time.perf_counter() - began


def _predicted_ratio(setting: Any) -> float:
    """Cost of students that share the teacher's passes, relative to separate programs."""
    from benchmarks.double_backprop import passes

    student, first_layer = passes.forward_cost(setting.module(setting.student), setting.image_size)
    teacher, _ = passes.forward_cost(setting.module(setting.teacher), setting.image_size)
    counted = passes.count(_METHOD.value)
    separate = counted.cost(student, first_layer, teacher)
    once = counted.teacher * teacher
    return (once / _STUDENTS.value + separate - once) / separate


def _report(setting: Any, seconds: Mapping[str, Sequence[float]]) -> None:
    import jax

    from at_jax.distributed import devices

    medians = {name: statistics.median(each) for name, each in seconds.items()}
    # Ratios within each round: a machine that slows down affects all programs alike.
    ratios = {
        name: statistics.median(
            taken / separate for taken, separate in zip(each, seconds["separate"], strict=True)
        )
        for name, each in seconds.items()
    }
    predicted = {name: 1.0 if name == "separate" else _predicted_ratio(setting) for name in seconds}
    device = devices.describe(setting.devices)
    print(
        f"\n{_STUDENTS.value} students {_PAIR.value}, {_METHOD.value}, batch {_BATCH.value}, {device}, "
        f"jax {jax.__version__}\n"
    )
    print(
        "| | ms per step of all students | relative to separate | predicted |\n|---|---:|---:|---:|"
    )
    for name, median in medians.items():
        print(f"| {name} | {1e3 * median:.0f} | {ratios[name]:.2f} | {predicted[name]:.2f} |")
    if _OUT.value:
        result = {
            "students": _STUDENTS.value,
            "pair": _PAIR.value,
            "method": _METHOD.value,
            "batch": _BATCH.value,
            "device": device,
            "jax": jax.__version__,
            "seconds": medians,
            "ratios": ratios,
            "predicted_ratios": predicted,
        }
        pathlib.Path(_OUT.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    command.run(main)
