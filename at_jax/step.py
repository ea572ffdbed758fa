"""One update and one evaluation: pure functions, the same on one device and on many."""

from collections.abc import Callable, Mapping
from typing import Any

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


def train_step(
    state: TrainState,
    teacher_variables: Any,
    key: jax.Array,
    batch: Batch,
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    weights: Mapping[str, optax.Schedule],
    prepare: Prepare,
    accumulation: int = 1,
    axis_name: str | None = None,
) -> tuple[TrainState, metrics.Metrics]:
    """One update of the student.

    Args:
      state: before the update.
      teacher_variables: of the frozen teacher, or None.
      key: of the run; the step is folded in, so augmentation is a function of (seed, step, position).
      batch: this device's share: ``image`` uint8 (b, H, W, C), ``label`` (b,), ``position`` (b,), the
        place of each example in the global batch.
      objective: the loss.
      optimizer: the rule.
      weights: schedules of the weighted terms.
      prepare: augmentation and normalisation.
      accumulation: micro-batches that the share is cut into, one after the other, gradients averaged.
        Batch statistics are then those of each micro-batch.
      axis_name: the pmapped axis, None on one device.

    Returns:
      The state after, and the global metrics: ``loss``, ``loss/<term>`` before weights, ``error``.
    """
    key = jax.random.fold_in(key, state.step)
    beta = {name: jnp.asarray(schedule(state.step)) for name, schedule in weights.items()}

    def micro_step(batch_stats, micro):
        images = prepare(key, micro["image"], micro["position"])
        (loss, outputs), gradient = jax.value_and_grad(objective, has_aux=True)(
            state.params, batch_stats, teacher_variables, images, micro["label"], beta
        )
        size = jnp.asarray(images.shape[0], jnp.float32)
        measured = {
            "loss": (loss * size, size),
            **{f"loss/{k}": metrics.from_examples(v) for k, v in outputs.terms.items()},
            "error": metrics.from_examples(metrics.errors(outputs.logits, micro["label"])),
        }
        return outputs.batch_stats, (gradient, measured)

    if accumulation == 1:
        batch_stats, (gradient, measured) = micro_step(state.batch_stats, batch)
    else:
        micros = jax.tree.map(lambda x: x.reshape(accumulation, -1, *x.shape[1:]), dict(batch))
        batch_stats, stacked = lax.scan(micro_step, state.batch_stats, micros)
        gradient = jax.tree.map(lambda g: jnp.mean(g, axis=0), stacked[0])
        measured = jax.tree.map(lambda m: jnp.sum(m, axis=0), stacked[1])

    if axis_name is not None:
        # Shares are of equal size, so the mean of their means is the mean over the global batch.
        gradient, batch_stats = lax.pmean((gradient, batch_stats), axis_name)
        measured = lax.psum(measured, axis_name)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    return state, measured


def train_steps(
    state: TrainState, teacher_variables: Any, key: jax.Array, batches: Batch, **static: Any
) -> tuple[TrainState, metrics.Metrics]:
    """Several updates in one program: arrays of ``batches`` have a leading axis of steps.

    Returns:
      The state after, and metrics with a leading axis of steps.
    """

    def body(state, batch):
        return train_step(state, teacher_variables, key, batch, **static)

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
