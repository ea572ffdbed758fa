"""A whole epoch against bare steps, and several students of one program against one at a time."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from at_jax import data
from at_jax.distributed import devices
from at_jax.objective import Objective
from at_jax.training import step
from at_jax.training.components import optimizers
from benchmarks.double_backprop import programs
from benchmarks.double_backprop.setting import Setting
from benchmarks.gpu import timing

__all__ = ["prepare_epoch", "prepare_together"]


def prepare_epoch(
    student: str, examples: int, batch: int, size: int, per_dispatch: int
) -> Callable[[], dict[str, Any]]:
    """Compile the steps of an epoch from images in host memory.

    The epoch orders, stacks and transfers the images, augments them on the device and fetches metrics, as
    the trainer does; it neither evaluates nor saves.

    Args:
      student: its name for :func:`at_jax.models.build`.
      examples: number of images.
      batch: images per step.
      size: height and width, in pixels.
      per_dispatch: steps of a program.

    Returns:
      Function that returns images per second of the epoch, and of its steps alone.
    """
    setting = Setting(student, student, size, batch, "float32", devices.select(1, batch))
    batches = _batches(examples, batch, size)
    mapped, initial, key = _plain_steps(setting)
    steps = batches.steps_per_epoch // per_dispatch * per_dispatch

    def shards(first: int) -> dict[str, np.ndarray]:
        taken = [batches.batch(number) for number in range(first, first + per_dispatch)]
        stacked = {name: np.stack([one[name] for one in taken]) for name in taken[0]}
        return devices.shard(stacked, 1, axis=1)

    fixed = shards(0)
    program = setting.compile(mapped, initial, None, key, fixed)

    def measure() -> dict[str, Any]:
        state, _ = jax.block_until_ready(program(initial, None, key, fixed))
        began = time.perf_counter()
        for _ in range(0, steps, per_dispatch):
            state, _ = program(state, None, key, fixed)
        jax.block_until_ready(state)
        bare = time.perf_counter() - began
        began, pending = time.perf_counter(), []
        for first in range(0, steps, per_dispatch):
            state, measured = program(state, None, key, shards(first))
            pending.append(measured)
            if len(pending) > devices.RUN_AHEAD:
                jax.device_get(pending.pop(0))
        jax.block_until_ready(state)
        whole = time.perf_counter() - began
        return {
            "bare_images_per_second": steps * batch / bare,
            "epoch_images_per_second": steps * batch / whole,
            "ratio": whole / bare,
        }

    return measure


def _batches(examples: int, batch: int, size: int) -> data.TrainBatches:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (examples, size, size, 3), np.uint8)
    split = data.Split(images, rng.integers(0, 10, examples).astype(np.int32))
    return data.TrainBatches(split, batch, seed=0)


def _plain_steps(setting: Setting) -> tuple[Any, Any, Any]:
    """Mapped function of several plain steps with augmentation, state and key."""
    student = setting.module(setting.student).clone(bn_axis_name=devices.AXIS_NAME)
    objective, optimizer = Objective(student), optimizers.sgd(**programs.OPTIMIZER)
    variables = setting.variables(setting.student, 0)
    initial = programs.initial_state(objective, setting, variables, optimizer)
    mapped = devices.map_train(
        functools.partial(
            step.train_steps,
            objective=objective,
            optimizer=optimizer,
            weights={},
            prepare=_prepare,
            axis_name=devices.AXIS_NAME,
        ),
        setting.devices,
    )
    return mapped, *devices.replicate((initial, jax.random.key(1)), setting.devices)


def _prepare(key: jax.Array, images: jax.Array, positions: jax.Array) -> jax.Array:
    augmented = data.augment(key, images, positions, pad=4, mirror=True)
    return (augmented.astype(jnp.float32) - 127.5) / 64


def prepare_together(
    student: str, teacher: str, size: int, batch: int, count: int, repeats: int
) -> Callable[[], dict[str, Any]]:
    """Compile a step of several students of one teacher in one program, and of one student alone.

    Args:
      student: its name for :func:`at_jax.models.build`.
      teacher: its name.
      size: height and width of the images, in pixels.
      batch: images per step.
      count: number of students.
      repeats: steps per round.

    Returns:
      Function that returns the time of the program, and that of one student times their number.
    """
    setting = Setting(student, teacher, size, batch, "float32", devices.select(1, batch))
    shards = setting.shards()
    alone, all_of_them = _students(setting, 1), _students(setting, count)

    def seconds(program: Any, *arguments: Any) -> float:
        current, rest = [arguments[0]], arguments[1:]
        on_device = jax.device_put(shards, program.input_shardings[0][-1])

        def call() -> Any:
            current[0], _ = program(current[0], *rest, on_device)
            return current[0]

        return timing.best(call, repeats)

    def measure() -> dict[str, Any]:
        separate, together = count * seconds(*alone), seconds(*all_of_them)
        return {
            "separate_ms": 1e3 * separate,
            "together_ms": 1e3 * together,
            "ratio": together / separate,
        }

    return measure


def _students(setting: Setting, count: int) -> tuple[Any, Any, Any, Any]:
    """Program of a step of several students, their states, the teacher's variables, and a key."""
    objective = programs.objective_of("at+kd", setting)
    optimizer = optimizers.sgd(**programs.OPTIMIZER)
    each = step.StudentSpec(objective, optimizer, programs.schedules(objective))
    frozen = setting.variables(setting.teacher, 100)
    mapped: Any = devices.map_train(
        functools.partial(
            step.train_together,
            students=(each,) * count,
            prepare=programs.unchanged,
            axis_name=devices.AXIS_NAME,
        ),
        setting.devices,
    )
    states = tuple(
        programs.initial_state(
            objective, setting, setting.variables(setting.student, seed), optimizer
        )
        for seed in range(count)
    )
    arguments = jax.device_get(states), frozen, jax.random.key(1)
    replicated = devices.replicate(arguments, setting.devices)
    return setting.compile(mapped, *replicated, setting.shards()), *replicated
