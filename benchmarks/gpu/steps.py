"""Training steps of a pair of networks: methods, precisions, steps per dispatch; the same in PyTorch."""

import dataclasses
import functools
import gc
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from at_jax.distributed import devices
from at_jax.training import step
from at_jax.training.components import optimizers
from benchmarks import compiled
from benchmarks.double_backprop import programs
from benchmarks.double_backprop.setting import Setting
from benchmarks.gpu import timing

__all__ = ["PRECISIONS", "Case", "prepare", "prepare_torch"]

# Name to (dtype of the networks, precision of JAX's products, precision of PyTorch's).
PRECISIONS = {
    "float32": ("float32", "float32", "highest"),
    "TF32": ("float32", "tensorfloat32", "high"),
    "bfloat16": ("bfloat16", "default", "high"),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One step.

    Attributes:
      student: its name for :func:`at_jax.models.build`.
      teacher: its name.
      size: height and width of the images, in pixels.
      batch: images per step.
      method: as in a config.
      precision: a key of ``PRECISIONS``.
    """

    student: str
    teacher: str
    size: int
    batch: int
    method: str
    precision: str

    def __str__(self) -> str:
        method = "plain" if self.method == "none" else self.method
        pair = f"{self.student} <- {self.teacher}, {self.size} px, batch {self.batch}"
        return f"{pair}, {method}, {self.precision}"

    @property
    def setting(self) -> Setting:
        """Networks, images and the device."""
        dtype, _, _ = PRECISIONS[self.precision]
        used = devices.select(1, self.batch)
        return Setting(self.student, self.teacher, self.size, self.batch, dtype, used)


@functools.lru_cache(maxsize=2)
def _variables(student: str, teacher: str, size: int) -> dict[str, Any]:
    setting = Setting(student, teacher, size, 1, "float32", devices.select(1, 1))
    return {
        "student": setting.variables(student, 0),
        "teacher": setting.variables(teacher, 1),
    }


def _step(case: Case) -> tuple[Any, Any, tuple[Any, Any]]:
    """Mapped function of several steps, state, and (teacher's variables, key)."""
    setting = case.setting
    objective = programs.objective_of(case.method, setting)
    optimizer = optimizers.sgd(**programs.OPTIMIZER)
    variables = _variables(case.student, case.teacher, case.size)
    initial = programs.initial_state(objective, setting, variables["student"], optimizer)
    frozen = variables["teacher"] if objective.teacher is not None else None
    mapped = devices.map_train(
        functools.partial(
            step.train_steps,
            objective=objective,
            optimizer=optimizer,
            weights=programs.schedules(objective),
            prepare=programs.unchanged,
            axis_name=devices.AXIS_NAME,
        ),
        setting.devices,
    )
    state, rest = devices.replicate((initial, (frozen, jax.random.key(1))), setting.devices)
    return mapped, state, rest


def prepare(case: Case, steps: int, repeats: int) -> Callable[[], dict[str, Any]]:
    """Compile ``steps`` steps in one program.

    Args:
      case: to measure.
      steps: per dispatch.
      repeats: dispatches per round.

    Returns:
      Function that returns ``steps_per_second``, ``peak_mib`` (arguments, results and temporaries), and
      ``loss`` of the first step.
    """
    _, precision, _ = PRECISIONS[case.precision]
    setting = case.setting
    with jax.default_matmul_precision(precision):
        mapped, state, rest = _step(case)
        batch = {k: np.repeat(v[:, None], steps, axis=1) for k, v in setting.shards().items()}
        program = setting.compile(mapped, state, *rest, batch)

    def measure() -> dict[str, Any]:
        shards = jax.device_put(batch, program.input_shardings[0][-1])
        current = [state]
        losses = []

        def call() -> Any:
            current[0], measured = program(current[0], *rest, shards)
            losses.append(measured["loss"])
            return current[0]

        seconds = timing.best(call, repeats) / steps
        total, count = jax.device_get(losses[0])
        return {
            "steps_per_second": 1 / seconds,
            "peak_mib": compiled.peak_bytes(program) / 2**20,
            "loss": float(np.ravel(total)[0] / np.ravel(count)[0]),
        }

    return measure


def prepare_torch(case: Case, compiled: bool, repeats: int) -> Callable[[], dict[str, Any]]:
    """The same step in PyTorch, channels last. It is compiled when it is measured.

    Args:
      case: to measure.
      compiled: with ``torch.compile``.
      repeats: steps per round.

    Returns:
      As :func:`prepare`.
    """
    return functools.partial(_measure_torch, case, compiled, repeats)


def _measure_torch(case: Case, compiled: bool, repeats: int) -> dict[str, Any]:
    import torch

    from benchmarks.double_backprop import pytorch

    setting = case.setting
    dtype, _, precision = PRECISIONS[case.precision]
    variables = _variables(case.student, case.teacher, case.size)
    images, labels = setting.images()
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        gc.collect()
        torch.cuda.empty_cache()  # JAX needs memory, too
        torch.cuda.reset_peak_memory_stats()
    program = pytorch.program(
        row=case.method,
        student=case.student,
        teacher=case.teacher,
        student_variables=variables["student"],
        teacher_variables=variables["teacher"],
        images=images,
        labels=labels,
        weights=programs.WEIGHTS,
        layout="channels_last",
        dtype=dtype,
        device="cuda" if on_gpu else "cpu",
        compiled=compiled,
        matmul_precision=precision,
        lr=programs.OPTIMIZER["learning_rate"],
        momentum=programs.OPTIMIZER["momentum"],
        weight_decay=programs.OPTIMIZER["weight_decay"],
    )
    seconds = timing.shortest(lambda: program(repeats)) / repeats
    return {
        "steps_per_second": 1 / seconds,
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None,
        "loss": program.loss,
    }
