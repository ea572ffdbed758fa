"""The rows of the benchmark as compiled training steps: the library's own, one program a row."""

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from at_jax import methods, models, pairing, parallel, state, step
from at_jax.objective import Objective
from at_jax.terms import Attention, Distillation, InputGradient
from benchmarks import compiled
from benchmarks.double_backprop import modes

# Other ways to differentiate the same loss, written after the method.
FORWARD_OVER_REVERSE, REMAT = "forward over reverse", "remat"
ROWS = (
    *("none", "kd", "at", "at+kd", "min_l2", "flip_symmetry", "gradient_at"),
    f"gradient_at ({FORWARD_OVER_REVERSE})",
    f"gradient_at ({REMAT})",
)
WEIGHTS = {"attention": 1000.0, "gradient_at": 1.0, "flip_symmetry": 1.0, "min_l2": 1.0}
# A small rate: networks without batch normalisation must stay finite on random images too.
OPTIMIZER = {"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all rows share.

    Attributes:
      student: its name for :func:`at_jax.models.build`.
      teacher: likewise.
      image_size: pixels a side.
      batch: images a step, over all devices.
      dtype: of the networks' arithmetic.
      devices: that share a batch.
    """

    student: str
    teacher: str
    image_size: int
    batch: int
    dtype: str
    devices: tuple[jax.Device, ...]

    def module(self, name: str) -> Any:
        """A network in the setting's dtype."""
        return models.build(name, CLASSES, jnp.dtype(self.dtype))

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """Random normalised images (B, H, W, 3) float32, and labels (B,)."""
        rng = np.random.default_rng(0)
        images = rng.standard_normal((self.batch, self.image_size, self.image_size, 3))
        return images.astype(np.float32), rng.integers(0, CLASSES, self.batch).astype(np.int32)

    def variables(self, name: str, seed: int) -> Any:
        """Variables of a network at initialisation, on the host."""
        image = jnp.zeros((1, self.image_size, self.image_size, 3))
        return jax.device_get(jax.jit(self.module(name).init)(jax.random.key(seed), image))


def split(row: str) -> tuple[str, str]:
    """``"gradient_at (remat)"`` -> ``("gradient_at", "remat")``; no mode is ``""``."""
    method, _, mode = row.removesuffix(")").partition(" (")
    return method, mode


def objective_of(row: str, setting: Setting) -> Objective:
    """The terms of a row. Each has the same networks and weights."""
    method, mode = split(row)
    parts = methods.parts_of(method)
    student, teacher = setting.module(setting.student), setting.module(setting.teacher)
    if mode == REMAT:
        if not hasattr(student, "remat"):
            raise ValueError(
                f"{row} needs a student of blocks, got {setting.student}: leave the row out with --methods"
            )
        student = student.clone(remat=True)
    if hasattr(student, "bn_axis_name"):
        student = student.clone(bn_axis_name=parallel.AXIS_NAME)
    return Objective(
        student,
        teacher if methods.needs_teacher(method) else None,
        _points(setting) if "at" in parts else (),
        distillation=Distillation() if "kd" in parts else None,
        attention=Attention() if "at" in parts else None,
        **{part: InputGradient() for part in parts if part not in ("kd", "at")},
    )


def _points(setting: Setting) -> tuple[tuple[str, str], ...]:
    image = (setting.image_size, setting.image_size, 3)
    student, teacher = (
        pairing.shapes(setting.module(name), image)[2]
        for name in (setting.student, setting.teacher)
    )
    if len(student) != len(teacher):
        raise ValueError(
            f"--pair must tap as many transfer points each, got {', '.join(student)} and "
            f"{', '.join(teacher)}: take networks of one family, or leave out at"
        )
    return tuple(zip(student, teacher, strict=True))


class Program:
    """One row, compiled for its devices. Compiling is timed; ``program(steps)`` runs and times steps."""

    def __init__(self, row: str, setting: Setting, variables: dict[str, Any]):
        self.row, self.setting = row, setting
        _, mode = split(row)
        objective = objective_of(row, setting)
        optimizer = state.sgd(**OPTIMIZER)
        loss = modes.forward_over_reverse(objective) if mode == FORWARD_OVER_REVERSE else objective
        params = {"student": variables["student"]["params"], "adapter": {}}
        initial = state.TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables["student"].get("batch_stats", {}),
            opt_state=optimizer.init(params),
        )
        frozen = variables["teacher"] if objective.teacher is not None else None
        self._rest = parallel.replicate((frozen, jax.random.key(1)), setting.devices)
        self._state = parallel.replicate(initial, setting.devices)
        images, labels = setting.images()
        batch = {
            "image": images,
            "label": labels,
            "position": np.arange(setting.batch, dtype=np.int32),
        }
        batch = parallel.shard(batch, len(setting.devices))
        mapped = parallel.map_train(
            functools.partial(
                step.train_step,
                objective=loss,
                optimizer=optimizer,
                weights={
                    term: optax.constant_schedule(WEIGHTS[term])
                    for term in objective.weighted_terms
                },
                prepare=lambda key, images, positions: images,
                axis_name=parallel.AXIS_NAME,
            ),
            setting.devices,
        )
        lowered = mapped.lower(self._state, *self._rest, batch)
        began = time.perf_counter()
        self.compiled = lowered.compile()
        self.compile_seconds = time.perf_counter() - began
        # On GPU convolutions are calls of cuDNN in the compiled program, which XLA does not count.
        self._on_cpu = setting.devices[0].platform == "cpu"
        self._flops = compiled.flops(self.compiled if self._on_cpu else lowered)
        self._batch = jax.device_put(batch, self.compiled.input_shardings[0][-1])
        _, self.first_metrics = self._step()

    def _step(self) -> Any:
        self._state, metrics = self.compiled(self._state, *self._rest, self._batch)
        return self._state, metrics

    @property
    def loss(self) -> float:
        """Of the first step, before any update."""
        total, count = self.first_metrics["loss"]
        return float(total) / float(count)

    def __call__(self, steps: int) -> float:
        """Seconds for so many steps."""
        jax.block_until_ready(self._state)
        began = time.perf_counter()
        for _ in range(steps):
            self._step()
        jax.block_until_ready(self._state)
        return time.perf_counter() - began

    def analysis(self) -> dict[str, Any]:
        """What does not depend on the clock: over all devices together."""
        count = len(self.setting.devices)
        _, slow = compiled.convolutions(self.compiled)
        return {
            "flops": self._flops * count,
            "temporary_bytes": compiled.temporary_bytes(self.compiled) * count,
            "compile_seconds": self.compile_seconds,
            "unoptimised_convolutions": len(slow) if self._on_cpu else None,
        }
