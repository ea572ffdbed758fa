"""What training changes, and the rule by which it does."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from at_jax.objective import Objective


class TrainState(flax.struct.PyTreeNode):
    """Everything that a step changes. The teacher is not in it.

    Attributes:
      step: updates done so far, int32 scalar.
      params: ``{"student": ..., "adapter": ...}``; the adapter is empty where there is none.
      batch_stats: running statistics of the student; empty without batch normalisation.
      opt_state: of the optimizer.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any


def sgd(
    learning_rate: optax.ScalarOrSchedule, *, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """Stochastic gradient descent as in the authors' code.

    Weight decay is on every parameter, batch normalisation and biases included, and is part of the
    gradient before momentum; no Nesterov. Momentum survives a drop of the rate.

    Args:
      learning_rate: a number, or a function of the step.
      momentum: 0..1.
      weight_decay: at least 0; the gradient of ``weight_decay / 2 * |params|^2`` is added.

    Returns:
      An optax transformation.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum=momentum)
    )


def create(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    image_shape: tuple[int, int, int],
    taps: dict[str, jax.ShapeDtypeStruct],
) -> TrainState:
    """A fresh state.

    Args:
      objective: with the student and, maybe, the adapter.
      optimizer: whose state is made.
      key: of the initialisation.
      image_shape: (H, W, C).
      taps: shapes of the student's activations (B, H, W, C), for the adapter.

    Returns:
      The state before the first step.
    """

    def init(key):
        key_student, key_adapter = jax.random.split(key)
        variables = objective.student.init(key_student, jnp.zeros((1, *image_shape)), train=False)
        params = {"student": variables["params"], "adapter": {}}
        if objective.adapter is not None:
            zeros = {name: jnp.zeros(tap.shape) for name, tap in taps.items()}
            params["adapter"] = objective.adapter.init(key_adapter, zeros)["params"]
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(params),
        )

    # One program instead of one per parameter: eager initialisation compiles each of them alone.
    return jax.jit(init)(key)
