"""One update: a pure function, the same on one device and on many."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from at_jax.objective import Objective
from at_jax.training import metrics
from at_jax.training.state import TrainState

__all__ = [
    "Batch", "Prepare", "StudentSpec", "train_step", "train_steps", "train_together",
]  # fmt: skip

Batch = Mapping[str, jax.Array]
# Augmentation and normalization: (key of the step, uint8 images, positions) -> floating point.
Prepare = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
# Separates the random numbers of terms and dropout from those of augmentation, which fold in the step.
_FORWARD_STREAM = 2**32 - 1


class StudentSpec(NamedTuple):
    """Static parts of one student's update.

    Attributes:
      objective: the loss.
      optimizer: may take the loss as extra argument ``value``.
      weights: term -> schedule of its weight.
    """

    objective: Objective
    optimizer: optax.GradientTransformation
    weights: Mapping[str, optax.Schedule]


def train_together(
    states: tuple[TrainState, ...],
    teacher_variables: Any,
    key: jax.Array,
    batch: Batch,
    *,
    students: tuple[StudentSpec, ...],
    prepare: Prepare,
    accumulation: int = 1,
    axis_name: str | None = None,
) -> tuple[tuple[TrainState, ...], tuple[metrics.Metrics, ...]]:
    """Update several students of one teacher on the same images, with one forward pass of the teacher.

    The students are unrolled, not vmapped: a convolution whose kernel has a batch axis has no fast form.

    Args:
      states: before the update, all at the same step.
      teacher_variables: of the frozen teacher; None where no student has one.
      key: of the run; the step is folded in.
      batch: this device's part: ``image`` uint8 (b, H, W, C), ``label`` (b,), ``position`` (b,), the
        index in the global batch.
      students: one for each state.
      prepare: augmentation and normalization.
      accumulation: micro-batches of the part. Gradients are averaged; batch statistics are separate.
      axis_name: the mapped axis; None on one device.

    Returns:
      New states, and global metrics of each: ``loss``, ``loss/<term>`` before weights, measures, errors.
    """
    step = states[0].step
    key_augment = jax.random.fold_in(key, step)
    key_forward = jax.random.fold_in(jax.random.fold_in(key, _FORWARD_STREAM), step)

    def micro_step(collections, micro):
        images = prepare(key_augment, micro["image"], micro["position"])
        keys = jax.vmap(lambda place: jax.random.fold_in(key_forward, place))(micro["position"])
        teacher = _shared_teacher(students, teacher_variables, images, micro["label"], keys)
        results = [
            _differentiate(student, state, each, teacher, images, micro["label"], keys)
            for student, state, each in zip(students, states, collections, strict=True)
        ]
        updated, gradients, measured = zip(*results, strict=True)
        return updated, gradients, measured

    collections = tuple(state.collections for state in states)
    if accumulation == 1:
        collections, gradients, measured = micro_step(collections, batch)
    else:
        params = tuple(state.params for state in states)
        collections, gradients, measured = _accumulated(
            micro_step, collections, params, batch, accumulation
        )

    if axis_name is not None:
        # Parts are of equal size, so the mean of their means is the mean over the global batch.
        gradients = lax.pmean(gradients, axis_name)
        collections = jax.tree.map(lambda x: _average(x, axis_name), collections)
        measured = lax.psum(measured, axis_name)
    each = zip(students, states, gradients, collections, measured, strict=True)
    return tuple(_updated(*one) for one in each), measured


def _accumulated(micro_step, collections, params, batch: Batch, accumulation: int):
    """Results of the micro-batches of a batch: last collections, mean gradients, sums of metrics."""

    def body(carry, micro):
        collections, total = carry
        collections, gradients, measured = micro_step(collections, micro)
        return (collections, jax.tree.map(jnp.add, total, gradients)), measured

    micros = jax.tree.map(lambda x: x.reshape(accumulation, -1, *x.shape[1:]), dict(batch))
    # Summed in the carry: stacked results would hold a gradient for each micro-batch.
    zeros = jax.tree.map(jnp.zeros_like, params)
    (collections, total), stacked = lax.scan(body, (collections, zeros), micros)
    gradients = jax.tree.map(lambda g: g / accumulation, total)
    return collections, gradients, jax.tree.map(lambda m: jnp.sum(m, axis=0), stacked)


def _shared_teacher(students: tuple[StudentSpec, ...], variables: Any, images, labels, keys) -> Any:
    """One forward pass of the teacher for several students; a single student applies its own."""
    if len(students) == 1:
        return variables
    objectives = [each.objective for each in students if each.objective.teacher is not None]
    if not objectives:
        return None
    # Students may read different submodules of the teacher.
    paths = dict.fromkeys(path for each in objectives for path in each.paths_t)
    shared = dataclasses.replace(objectives[0], paths_t=tuple(paths))
    return shared.view_teacher(variables, images, labels, keys)


def _differentiate(
    student: StudentSpec, state: TrainState, collections, teacher, images, labels, keys
):
    """Collections, gradient and metrics of one student on one micro-batch."""
    beta = {name: jnp.asarray(schedule(state.step)) for name, schedule in student.weights.items()}
    (loss, outputs), gradient = jax.value_and_grad(student.objective, has_aux=True)(
        state.params, collections, teacher, images, labels, beta, keys
    )
    size = jnp.asarray(images.shape[0], jnp.float32)
    measured = {
        "loss": (loss * size, size),
        **{f"loss/{k}": metrics.from_examples(v) for k, v in outputs.terms.items()},
        **{k: metrics.from_examples(v) for k, v in outputs.measures.items()},
        **metrics.error_metrics(outputs.logits, labels),
    }
    return outputs.collections, gradient, measured


def _average(x: jax.Array, axis_name: str) -> jax.Array:
    """Mean over devices of a floating-point array; counters are equal on all of them."""
    return lax.pmean(x, axis_name) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _updated(
    student: StudentSpec, state: TrainState, gradient, collections, measured
) -> TrainState:
    total, count = measured["loss"]
    optimizer = optax.with_extra_args_support(student.optimizer)
    updates, opt_state = optimizer.update(
        gradient, state.opt_state, state.params, value=total / count
    )
    return state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        collections=collections,
        opt_state=opt_state,
    )


def train_step(
    state: TrainState,
    teacher_variables: Any,
    key: jax.Array,
    batch: Batch,
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    weights: Mapping[str, optax.Schedule],
    **shared: Any,
) -> tuple[TrainState, metrics.Metrics]:
    """Update one student: :func:`train_together` with one.

    Args:
      state: before the update.
      teacher_variables: of the frozen teacher; None without one.
      key: of the run.
      batch: this device's part.
      objective: the loss.
      optimizer: an optax transformation.
      weights: term -> schedule of its weight.
      **shared: ``prepare``, ``accumulation`` and ``axis_name``.

    Returns:
      The state after the update, and its metrics.
    """
    students = (StudentSpec(objective, optimizer, weights),)
    states, measured = train_together(
        (state,), teacher_variables, key, batch, students=students, **shared
    )
    return states[0], measured[0]


def train_steps(
    state: Any,
    teacher_variables: Any,
    key: jax.Array,
    batches: Batch,
    *,
    step: Callable[..., tuple[Any, Any]] = train_step,
    **static: Any,
) -> tuple[Any, Any]:
    """Run several updates in one program; arrays of ``batches`` have a leading axis of steps.

    Args:
      state: of one student, or a tuple of states.
      teacher_variables: of the frozen teacher; None without one.
      key: of the run.
      batches: this device's part of each step's batch.
      step: :func:`train_step` or :func:`train_together`.
      **static: its keyword arguments.

    Returns:
      The state after the updates, and metrics with a leading axis of steps.
    """

    def body(state, batch):
        return step(state, teacher_variables, key, batch, **static)

    steps = jax.tree.leaves(dict(batches))[0].shape[0]
    return lax.scan(body, state, dict(batches), unroll=steps == 1)
