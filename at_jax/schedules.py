"""Learning rate and transfer weight as functions of the step. Pure; built from optax's schedules."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax

DECAYS = ("constant", "linear", "cosine", "steps")


def step_decay(initial: float, boundaries: Sequence[int], factor: float) -> optax.Schedule:
    """``initial``, multiplied by ``factor`` from each boundary on.

    Args:
      initial: the value before the first boundary.
      boundaries: steps (optimizer updates) at which the value drops, increasing.
      factor: what it is multiplied by.

    Returns:
      A function from the step to the value.

    >>> schedule = step_decay(0.1, (10, 20), 0.2)
    >>> [round(float(schedule(step)), 4) for step in (0, 9, 10, 20)]
    [0.1, 0.1, 0.02, 0.004]
    """

    # Not optax.piecewise_constant_schedule, which mixes dtypes where promotion is strict.
    def schedule(step):
        passed = jnp.asarray(step) >= jnp.asarray(tuple(boundaries), jnp.int32)
        return initial * jnp.prod(jnp.where(passed, factor, 1.0))

    return schedule


def decay(
    kind: str, initial: float, steps: int, *, boundaries: Sequence[int] = (), factor: float = 0.1
) -> optax.Schedule:
    """The weight beta of a transfer term over training.

    The paper combines attention transfer with distillation under a decaying beta and states no law,
    so the usual ones are offered.

    Args:
      kind: ``"constant"``; ``"linear"`` to zero or ``"cosine"`` to zero over ``steps``; or
        ``"steps"``, multiplied by ``factor`` at each boundary.
      initial: beta at step 0.
      steps: the length of training, in steps.
      boundaries: for ``"steps"``, in steps.
      factor: for ``"steps"``.

    Returns:
      A function from the step to beta.

    Raises:
      ValueError: for an unknown kind.

    >>> [float(decay("linear", 1000.0, 10)(step)) for step in (0, 5, 10)]
    [1000.0, 500.0, 0.0]
    """
    if kind not in DECAYS:
        raise ValueError(f"the decay of beta must be one of {', '.join(DECAYS)}, got {kind!r}")
    if kind == "linear":
        linear = optax.linear_schedule(initial, 0.0, steps)
        # Compiled, 1 - steps/steps rounds to -1e-8: beta would end below zero.
        return lambda step: jnp.maximum(linear(step), 0.0)
    if kind == "cosine":
        cosine = optax.cosine_decay_schedule(initial, steps)
        # optax mixes the dtypes of a traced integer step and its own float.
        return lambda step: cosine(jnp.asarray(step, float))
    if kind == "steps":
        return step_decay(initial, boundaries, factor)
    return optax.constant_schedule(initial)
