"""Rows of the benchmark: training steps of the library, one compiled program for each row."""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax

from at_jax.distributed import compilation, devices
from at_jax.errors import UserError, listed
from at_jax.objective import Objective
from at_jax.terms import TERMS, needs_teacher, parts
from at_jax.training import state, step
from at_jax.training.components import optimizers
from benchmarks import compiled
from benchmarks.double_backprop import modes
from benchmarks.double_backprop.setting import Setting

__all__ = [
    "FORWARD_OVER_REVERSE", "OPTIMIZER", "REMAT", "ROWS", "WEIGHTS", "Program",
    "initial_state", "objective_of", "schedules", "split", "unchanged",
]  # fmt: skip

# Other ways to differentiate the same loss. They follow the method in the name of a row.
FORWARD_OVER_REVERSE, REMAT = "forward over reverse", "remat"
ROWS = (
    *("none", "kd", "at", "at+kd", "min_l2", "flip_symmetry", "gradient_at"),
    *("jacobian", "sobolev", "map_gradient"),
    f"gradient_at ({FORWARD_OVER_REVERSE})",
    f"gradient_at ({REMAT})",
)
WEIGHTS = {name: term.beta for name, term in TERMS.items() if term.beta is not None}
# A small rate: networks without batch normalization must stay finite on random images too.
OPTIMIZER: dict[str, Any] = {"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 5e-4}


def split(row: str) -> tuple[str, str]:
    """Split a row into its method and its mode; the mode of the library is ``""``.

    >>> split("gradient_at (remat)"), split("at+kd")
    (('gradient_at', 'remat'), ('at+kd', ''))
    """
    method, _, mode = row.removesuffix(")").partition(" (")
    return method, mode


def objective_of(row: str, setting: Setting) -> Objective:
    """Build the objective of a row.

    Raises:
      UserError: if the pair of networks cannot have this row.
    """
    method, mode = split(row)
    terms = tuple(TERMS[name]() for name in parts(method))
    student: Any = setting.module(setting.student)
    if mode == REMAT:
        if not hasattr(student, "remat"):
            raise UserError(
                f"{row} needs a student of blocks, got {setting.student}: choose a WRN or ResNet, or "
                "leave the row out with --methods"
            )
        student = student.clone(remat=True)
    if hasattr(student, "bn_axis_name"):
        student = student.clone(bn_axis_name=devices.AXIS_NAME)
    teacher = setting.module(setting.teacher) if needs_teacher(method) else None
    points = _points(setting) if any(term.compares_taps for term in terms) else ()
    return Objective(student, teacher, terms, points)


def _points(setting: Setting) -> tuple[tuple[str, str], ...]:
    student = setting.taps(setting.student, "student")
    teacher = setting.taps(setting.teacher, "teacher")
    if len(student) != len(teacher):
        raise UserError(
            f"--pair must name networks with the same number of transfer points, got {listed(student)} "
            f"and {listed(teacher)}: choose networks of one family, or a method that compares no taps"
        )
    return tuple(zip(student, teacher, strict=True))


def initial_state(
    objective: Objective, setting: Setting, variables: Any, optimizer: Any
) -> state.TrainState:
    """State before the first step, from the student's variables.

    Args:
      objective: of the row.
      setting: of the run.
      variables: of the student, all collections.
      optimizer: its state is initialized.
    """
    taps_s = setting.taps(setting.student, "student")
    taps_t = setting.taps(setting.teacher, "teacher")
    params = {"student": variables["params"]}
    for name, module in objective.modules(taps_s, taps_t).items():
        zeros = {point: jnp.zeros(tap.shape) for point, tap in taps_s.items()}
        params[name] = module.init(jax.random.key(2), zeros)["params"]
    return state.TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        collections=state.carried_collections(variables),
        opt_state=optimizer.init(params),
    )


def schedules(objective: Objective) -> dict[str, optax.Schedule]:
    """Constant weights of an objective's terms."""
    return {name: optax.constant_schedule(WEIGHTS[name]) for name in objective.weighted_terms}


def unchanged(key: jax.Array, images: jax.Array, positions: jax.Array) -> jax.Array:
    """Return the images, which are normalized already: no augmentation."""
    del key, positions
    return images


class Program:
    """Training step of one row, compiled for its devices. ``program(steps)`` runs and times steps.

    Args:
      row: one of ``ROWS``.
      setting: of the run.
      variables: ``"student"`` and ``"teacher"``.

    Attributes:
      compile_seconds: time of compiling.
    """

    def __init__(self, row: str, setting: Setting, variables: dict[str, Any]):
        self.row, self.setting = row, setting
        objective = objective_of(row, setting)
        loss: Any = objective
        if split(row)[1] == FORWARD_OVER_REVERSE:
            loss = modes.forward_over_reverse(objective)
        optimizer = optimizers.sgd(**OPTIMIZER)
        initial = initial_state(objective, setting, variables["student"], optimizer)
        frozen = variables["teacher"] if objective.teacher is not None else None
        self._rest = devices.replicate((frozen, jax.random.key(1)), setting.devices)
        self._state = devices.replicate(initial, setting.devices)
        batch = setting.shards()
        mapped: Any = devices.map_train(
            functools.partial(
                step.train_step,
                objective=loss,
                optimizer=optimizer,
                weights=schedules(objective),
                prepare=unchanged,
                axis_name=devices.AXIS_NAME,
            ),
            setting.devices,
        )
        lowered = mapped.lower(self._state, *self._rest, batch)
        began = time.perf_counter()
        options = compilation.step_options(setting.devices[0].platform)
        self.compiled = lowered.compile(compiler_options=options)
        self.compile_seconds = time.perf_counter() - began
        self._on_cpu = setting.devices[0].platform == "cpu"
        traced = jax.make_jaxpr(mapped)(self._state, *self._rest, batch)
        self._multiply_adds = sum(compiled.multiply_adds(traced.jaxpr))
        self._batch = jax.device_put(batch, self.compiled.input_shardings[0][-1])
        self._first_metrics = self._step()

    def _step(self) -> Any:
        self._state, metrics = self.compiled(self._state, *self._rest, self._batch)
        return metrics

    @property
    def loss(self) -> float:
        """Loss of the first step, before any update."""
        total, count = self._first_metrics["loss"]
        return float(total) / float(count)

    def __call__(self, steps: int) -> float:
        """Run some steps and return their time, in seconds."""
        jax.block_until_ready(self._state)
        began = time.perf_counter()
        for _ in range(steps):
            self._step()
        jax.block_until_ready(self._state)
        return time.perf_counter() - began

    def analysis(self) -> dict[str, Any]:
        """Static properties of the program, summed over all devices."""
        count = len(self.setting.devices)
        _, slow = compiled.convolutions(self.compiled)
        return {
            "flops": 2 * self._multiply_adds * count,
            "temporary_bytes": compiled.temporary_bytes(self.compiled) * count,
            "compile_seconds": self.compile_seconds,
            "slow_convolutions": len(slow) if self._on_cpu else None,
        }
