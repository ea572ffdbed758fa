"""One update and one evaluation: pure functions, the same on one device and on many."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from at_jax import losses, metrics
from at_jax.objective import Objective
from at_jax.state import TrainState

Batch = Mapping[str, jax.Array]
# Augments and normalises on the device: (key of the step, images uint8, positions) -> floating point.
Prepare = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class Learner(NamedTuple):
    """What is static about one student of a step.

    Attributes:
      objective: the loss.
      optimizer: the rule.
      weights: schedules of the weighted terms.
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
    learners: tuple[Learner, ...],
    prepare: Prepare,
    accumulation: int = 1,
    axis_name: str | None = None,
) -> tuple[tuple[TrainState, ...], tuple[metrics.Metrics, ...]]:
    """One update of each of several students, on the same images, of the same teacher.

    The teacher looks at the images once for all of them. The students are written out one after the
    other, not mapped over: a convolution whose kernel has a batch axis has no fast form
    (``python -m benchmarks.together``).

    Args:
      states: before the update, all at the same step.
      teacher_variables: of the frozen teacher, or None where no student has one.
      key: of the run; the step is folded in, so augmentation is a function of (seed, step, position).
      batch: this device's share: ``image`` uint8 (b, H, W, C), ``label`` (b,), ``position`` (b,), the
        place of each example in the global batch.
      learners: one a state.
      prepare: augmentation and normalisation.
      accumulation: micro-batches that the share is cut into, one after the other, gradients averaged.
        Batch statistics are then those of each micro-batch.
      axis_name: the pmapped axis, None on one device.

    Returns:
      The states after, and the global metrics of each: ``loss``, ``loss/<term>`` before weights,
      ``error``.
    """
    key = jax.random.fold_in(key, states[0].step)

    def micro_step(batch_stats, micro):
        images = prepare(key, micro["image"], micro["position"])
        taught = _taught(learners, teacher_variables, images, micro["label"])
        results = [
            _differentiate(learner, state, stats, taught, images, micro["label"])
            for learner, state, stats in zip(learners, states, batch_stats, strict=True)
        ]
        moved, gradients, measured = zip(*results, strict=True)
        return moved, (gradients, measured)

    batch_stats = tuple(state.batch_stats for state in states)
    if accumulation == 1:
        batch_stats, (gradients, measured) = micro_step(batch_stats, batch)
    else:
        micros = jax.tree.map(lambda x: x.reshape(accumulation, -1, *x.shape[1:]), dict(batch))
        batch_stats, stacked = lax.scan(micro_step, batch_stats, micros)
        gradients = jax.tree.map(lambda g: jnp.mean(g, axis=0), stacked[0])
        measured = jax.tree.map(lambda m: jnp.sum(m, axis=0), stacked[1])

    if axis_name is not None:
        # Shares are of equal size, so the mean of their means is the mean over the global batch.
        gradients, batch_stats = lax.pmean((gradients, batch_stats), axis_name)
        measured = lax.psum(measured, axis_name)
    every = zip(learners, states, gradients, batch_stats, strict=True)
    return tuple(_updated(*one) for one in every), measured


def _taught(learners: tuple[Learner, ...], variables: Any, images, labels) -> Any:
    """What the teacher says, once for several students; one student asks its teacher itself."""
    if len(learners) == 1:
        return variables
    taught = [each.objective for each in learners if each.objective.teacher is not None]
    if not taught:
        return None
    # J is computed only where one of them asks for it.
    asking = next((each for each in taught if each.gradient_at is not None), taught[0])
    return asking.teach(variables, images, labels)


def _differentiate(learner: Learner, state: TrainState, batch_stats, taught, images, labels):
    """Statistics after, gradient and metrics of one student on one micro-batch."""
    beta = {name: jnp.asarray(f(state.step)) for name, f in learner.weights.items()}
    (loss, outputs), gradient = jax.value_and_grad(learner.objective, has_aux=True)(
        state.params, batch_stats, taught, images, labels, beta
    )
    size = jnp.asarray(images.shape[0], jnp.float32)
    measured = {
        "loss": (loss * size, size),
        **{f"loss/{k}": metrics.from_examples(v) for k, v in outputs.terms.items()},
        "error": metrics.from_examples(metrics.errors(outputs.logits, labels)),
    }
    return outputs.batch_stats, gradient, measured


def _updated(learner: Learner, state: TrainState, gradient, batch_stats) -> TrainState:
    updates, opt_state = learner.optimizer.update(gradient, state.opt_state, state.params)
    return state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
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
    """One update of one student: :func:`train_together` of one.

    Args:
      state: before the update.
      teacher_variables: of the frozen teacher, or None.
      key: of the run.
      batch: this device's share.
      objective: the loss.
      optimizer: the rule.
      weights: schedules of the weighted terms.
      **shared: ``prepare``, ``accumulation`` and ``axis_name``.

    Returns:
      The state after, and its metrics.
    """
    learners = (Learner(objective, optimizer, weights),)
    states, measured = train_together(
        (state,), teacher_variables, key, batch, learners=learners, **shared
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
    """Several updates in one program: arrays of ``batches`` have a leading axis of steps.

    Args:
      state: of one student, or those of several.
      teacher_variables: of the frozen teacher, or None.
      key: of the run.
      batches: this device's share of each step's batch.
      step: :func:`train_step` or :func:`train_together`.
      **static: its keywords.

    Returns:
      The state after, and metrics with a leading axis of steps.
    """

    def body(state, batch):
        return step(state, teacher_variables, key, batch, **static)

    steps = jax.tree.leaves(dict(batches))[0].shape[0]
    return lax.scan(body, state, dict(batches), unroll=steps == 1)


def eval_step(
    variables: Any,
    batch: Batch,
    *,
    module: nn.Module,
    prepare: Callable[[jax.Array], jax.Array],
    axis_name: str | None = None,
) -> metrics.Metrics:
    """Measure a network on one batch.

    Args:
      variables: ``{"params": ..., "batch_stats": ...}``.
      batch: ``image`` uint8 (b, H, W, C), ``label`` (b,), ``weight`` (b,), 0 for padding.
      module: the network.
      prepare: normalisation.
      axis_name: the pmapped axis, None on one device.

    Returns:
      Global metrics: ``error`` and ``cross_entropy``.
    """
    logits = module.apply(variables, prepare(batch["image"]), train=False)
    labels, weight = batch["label"], batch["weight"]
    measured = {
        "error": metrics.from_examples(metrics.errors(logits, labels), weight),
        "cross_entropy": metrics.from_examples(losses.cross_entropy(logits, labels), weight),
    }
    return measured if axis_name is None else lax.psum(measured, axis_name)
