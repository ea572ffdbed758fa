"""Learning-rate schedules and schedules of the weight beta: functions from the step to a value.

Steps are Python integers or traced int32 scalars.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from at_jax.errors import UserError

__all__ = ["DECAYS", "SCHEDULES", "begin", "decay", "learning_rate", "step_decay"]

DECAYS = ("constant", "linear", "cosine", "steps")
SCHEDULES = ("steps", "cosine", "one_cycle", "constant")
# One-cycle policy (Smith & Topin 2019), with the rise and the start of optax and PyTorch; it ends at 0.
_RISE = 0.3
_START_DIVISOR = 25.0


def step_decay(initial: float, boundaries: Sequence[int], factor: float) -> optax.Schedule:
    """Schedule that starts at ``initial`` and is multiplied by ``factor`` at each boundary.

    Args:
      initial: value before the first boundary.
      boundaries: steps at which the value drops, increasing.
      factor: multiplier per boundary.

    Returns:
      Function from the step to the value.

    >>> schedule = step_decay(0.1, (10, 20), 0.2)
    >>> [round(float(schedule(step)), 4) for step in (0, 9, 10, 20)]
    [0.1, 0.1, 0.02, 0.004]
    """
    # A run has fewer than 2**31 steps: a later boundary is never reached.
    reached = tuple(min(boundary, 2**31 - 1) for boundary in boundaries)

    # Not optax.piecewise_constant_schedule, which mixes dtypes under strict dtype promotion.
    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        passed = jnp.asarray(step) >= jnp.asarray(reached, jnp.int32)
        return initial * jnp.prod(jnp.where(passed, factor, 1.0))

    return schedule


def decay(
    kind: str, initial: float, steps: int, *, boundaries: Sequence[int] = (), factor: float = 0.1
) -> optax.Schedule:
    """Schedule of the weight beta of a transfer term.

    The paper decays beta when it combines attention transfer with distillation, but does not state the
    schedule.

    Args:
      kind: ``"constant"``; ``"linear"`` or ``"cosine"``, which reach zero at ``steps``; or ``"steps"``,
        which multiplies by ``factor`` at each boundary.
      initial: beta at step 0.
      steps: length of the training run, in steps.
      boundaries: for ``"steps"``, in steps.
      factor: for ``"steps"``.

    Returns:
      Function from the step to beta.

    Raises:
      UserError: if the kind is unknown.

    >>> [float(decay("linear", 1000.0, 10)(step)) for step in (0, 5, 10)]
    [1000.0, 500.0, 0.0]
    """
    if kind not in DECAYS:
        raise UserError(
            f"the decay of beta must be one of {', '.join(DECAYS)}, got {kind!r}: set transfer.decay to "
            "one of them"
        )
    if kind == "linear":
        linear = optax.linear_schedule(initial, 0.0, steps)
        # In a compiled program 1 - steps/steps rounds to -1e-8, and beta would end below zero.
        return lambda step: jnp.maximum(linear(step), 0.0)
    if kind == "cosine":
        cosine = optax.cosine_decay_schedule(initial, steps)
        # The cast avoids mixing a traced integer step with the floats of optax.
        return lambda step: cosine(jnp.asarray(step, float))
    if kind == "steps":
        return step_decay(initial, boundaries, factor)
    return optax.constant_schedule(initial)


def learning_rate(
    kind: str,
    peak: float,
    steps: int,
    *,
    warmup_steps: int = 0,
    boundaries: Sequence[int] = (),
    factor: float = 0.1,
) -> optax.Schedule:
    """Learning-rate schedule of a run.

    With ``w = warmup_steps``, the rate at step ``s`` is ``min(s / w, 1)`` times

    - ``"steps"``: ``peak``, multiplied by ``factor`` at each boundary;
    - ``"cosine"``: ``peak (1 + cos(pi (s - w) / (steps - w))) / 2`` from the end of the warm-up on, so 0
      at ``steps``;
    - ``"constant"``: ``peak``.

    ``"one_cycle"`` rises from ``peak / 25`` to ``peak`` over the first 30 % of the steps and falls to 0
    at ``steps``, both as half a cosine (Smith & Topin 2019).

    Args:
      kind: one of ``SCHEDULES``.
      peak: largest learning rate.
      steps: length of the training run, in steps.
      warmup_steps: length of the linear warm-up from 0; must be 0 with ``"one_cycle"``.
      boundaries: for ``"steps"``, in steps.
      factor: for ``"steps"``.

    Returns:
      Function from the step to the learning rate.

    Raises:
      UserError: if the kind is unknown, or the warm-up is too long or not supported.

    >>> cosine = learning_rate("cosine", 0.8, 12, warmup_steps=4)
    >>> [round(float(cosine(step)), 4) for step in (0, 2, 4, 8, 12)]
    [0.0, 0.4, 0.8, 0.4, 0.0]
    >>> one_cycle = learning_rate("one_cycle", 1.0, 100)
    >>> [round(float(one_cycle(step)), 4) for step in (0, 15, 30, 65, 100)]
    [0.04, 0.52, 1.0, 0.5, 0.0]
    """
    _check_learning_rate(kind, steps, warmup_steps)
    if kind == "one_cycle":
        return _one_cycle(peak, steps)
    if kind == "cosine":
        schedule = _cosine(peak, warmup_steps, steps)
    elif kind == "steps":
        schedule = step_decay(peak, boundaries, factor)
    else:
        schedule = optax.constant_schedule(peak)
    if not warmup_steps:
        return schedule
    return lambda step: schedule(step) * _fraction(step, 0, warmup_steps)


def begin(schedule: optax.Schedule, first_step: int) -> optax.Schedule:
    """Schedule that is 0 before ``first_step`` and equal to the given one from then on.

    Args:
      schedule: function from the step to a value. It is not shifted: at ``first_step`` it has the value
        that it would have without a late start.
      first_step: first step with the given schedule; 0 returns the schedule unchanged.

    Returns:
      Function from the step to the value.

    >>> late = begin(step_decay(8.0, (4,), 0.5), 3)
    >>> [float(late(step)) for step in (0, 2, 3, 4)]
    [0.0, 0.0, 8.0, 4.0]
    """
    if not first_step:
        return schedule
    return lambda step: jnp.where(jnp.asarray(step) >= first_step, schedule(step), 0.0)


def _check_learning_rate(kind: str, steps: int, warmup_steps: int) -> None:
    if kind not in SCHEDULES:
        raise UserError(
            f"the learning-rate schedule must be one of {', '.join(SCHEDULES)}, got {kind!r}: set "
            "optimizer.schedule to one of them"
        )
    if kind == "one_cycle" and warmup_steps:
        raise UserError(
            f"one_cycle has its own warm-up, got an additional warm-up of {warmup_steps} steps: set "
            "optimizer.warmup_epochs to 0, or use another optimizer.schedule"
        )
    if warmup_steps and not 0 < warmup_steps < steps:
        raise UserError(
            f"the learning-rate warm-up must be shorter than the run of {steps} steps, got {warmup_steps} "
            "steps: lower optimizer.warmup_epochs, or raise epochs"
        )


def _fraction(step: jax.typing.ArrayLike, first: int, last: int) -> jax.Array:
    """Elapsed fraction of the interval from ``first`` to ``last``, clipped to 0..1."""
    # The cast avoids mixing a traced integer step with floats under strict dtype promotion.
    return jnp.clip((jnp.asarray(step, float) - first) / (last - first), 0.0, 1.0)


def _cosine(peak: float, first: int, last: int) -> optax.Schedule:
    """Half a cosine from ``peak`` at step ``first`` to 0 at step ``last``."""
    return lambda step: peak * 0.5 * (1.0 + jnp.cos(jnp.pi * _fraction(step, first, last)))


def _one_cycle(peak: float, steps: int) -> optax.Schedule:
    # In a very short run, 30 % of the steps round to 0.
    top = min(max(round(_RISE * steps), 1), steps)
    low = peak / _START_DIVISOR
    rising, falling = _cosine(peak - low, 0, top), _cosine(peak, top, max(steps, top + 1))

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        return jnp.where(jnp.asarray(step) < top, peak - rising(step), falling(step))

    return schedule
