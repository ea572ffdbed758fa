"""Optimizer, learning rate and term weights of the config, built from optax."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from at_jax import freezing
from at_jax.errors import UserError, one_line, traceable
from at_jax.training import schedules
from at_jax.training.settings import OptimizerSettings, Settings, TermSettings, combinations

__all__ = [
    "OptimizerFactory", "build", "from_factory", "learning_rate", "sgd", "term_weights", "without",
]  # fmt: skip

# From the learning-rate schedule (step -> rate) to a transformation.
OptimizerFactory = Callable[[optax.Schedule], optax.GradientTransformation]


def sgd(
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: float,
    weight_decay: float,
    nesterov: bool = False,
    mask: Any = None,
) -> optax.GradientTransformation:
    """Stochastic gradient descent as in the authors' code.

    Weight decay is part of the gradient before momentum, and by default applies to every parameter,
    BatchNorm scales and biases included. Momentum survives a drop of the rate.

    Args:
      learning_rate: a number, or a function of the step.
      momentum: 0..1.
      weight_decay: at least 0; the gradient of ``weight_decay / 2 * |params|^2`` is added.
      nesterov: use Nesterov momentum; the authors do not.
      mask: parameters that decay, as for ``optax.add_decayed_weights``; None for all.

    Returns:
      An optax transformation.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask),
        optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov),
    )


def build(settings: OptimizerSettings, rate: optax.Schedule) -> optax.GradientTransformation:
    """Build the optimizer of a config.

    Args:
      settings: the section ``optimizer``.
      rate: step -> learning rate.

    Returns:
      An optax transformation. SGD decays weights in the gradient, AdamW and LAMB decouple the decay.
    """
    mask = kernels if settings.decay_mask == "kernels" else None
    if settings.name == "sgd":
        optimizer = sgd(
            rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov,
            mask=mask,
        )
    else:
        make = {"adamw": optax.adamw, "lamb": optax.lamb}[settings.name]
        optimizer = make(rate, weight_decay=settings.weight_decay, mask=mask)
    if settings.clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(settings.clip_norm), optimizer)
    return optimizer


def kernels(params: Any) -> Any:
    """Mask of the parameters with two axes or more, without biases and scales.

    The biases of Flax's attention have two axes.

    >>> kernels({"query": {"kernel": jnp.ones((8, 2, 4)), "bias": jnp.ones((2, 4))}})
    {'query': {'bias': False, 'kernel': True}}
    """

    def is_kernel(path: Any, leaf: Any) -> bool:
        name = str(getattr(path[-1], "key", "")) if path else ""
        return leaf.ndim > 1 and name not in ("bias", "scale")

    return jax.tree_util.tree_map_with_path(is_kernel, params)


def without(
    optimizer: optax.GradientTransformation, names: Sequence[str]
) -> optax.GradientTransformation:
    """Leave frozen modules of the student out of an optimizer: no update, no decay and no memory.

    Args:
      optimizer: of all parameters, ``{"student": ..., <term>: ...}``.
      names: of frozen modules, see :mod:`at_jax.freezing`.
    """
    if not names:
        return optimizer

    def labels(params: Any) -> Any:
        flat = traverse_util.flatten_dict(params)
        return traverse_util.unflatten_dict(
            {path: path[0] == "student" and freezing.is_frozen(path[1:], names) for path in flat}
        )

    return optax.multi_transform({False: optimizer, True: optax.set_to_zero()}, labels)


def from_factory(
    factory: OptimizerFactory, rate: optax.Schedule, params: Any
) -> tuple[optax.GradientTransformationExtraArgs, bool]:
    """Build an optimizer of the user, and trace its update: to check it, and to see if it reads the rate.

    Args:
      factory: from the schedule to an optax transformation.
      rate: step -> learning rate.
      params: shapes of what is trained.

    Returns:
      The optimizer, and whether it reads the rate of every step.

    Raises:
      UserError: if it is no transformation, needs other arguments than the loss, or changes the types of
        its state.
    """
    reads: list[Any] = []

    def observed(step: Any) -> Any:
        reads.append(step)
        return rate(step)

    optimizer = _with_value(factory(observed))
    reads.clear()  # a factory may call the schedule, and keep a number

    def update(params: Any, value: Any) -> tuple[Any, Any]:
        before = optimizer.init(params)
        return before, optimizer.update(params, before, params, value=value)[1]

    try:
        with traceable("optimizer"):
            before, after = jax.eval_shape(update, params, jax.ShapeDtypeStruct((), jnp.float32))
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise UserError(
            "optimizer must update from gradients, state, params and value= (the loss), got "
            f"{one_line(error)}: choose another one"
        ) from error
    if changed := differing(before, after):
        raise UserError(
            f"optimizer must keep the types of its state, got {changed} after an update: cast it"
        )
    # MultiSteps counts groups of steps, and reads the rate of a group.
    states = jax.tree.leaves(before, is_leaf=lambda x: isinstance(x, optax.MultiStepsState))
    return optimizer, bool(reads) and not any(isinstance(x, optax.MultiStepsState) for x in states)


def _with_value(optimizer: Any) -> optax.GradientTransformationExtraArgs:
    """Let an optimizer take the loss as ``value``; it is dropped if its update has no such argument."""
    if not all(callable(getattr(optimizer, name, None)) for name in ("init", "update")):
        raise UserError(
            f"optimizer must return an optax transformation, got {type(optimizer).__name__}: return it, as "
            "in lambda rate: optax.adamw(rate)"
        )
    try:
        parameters = inspect.signature(optimizer.update).parameters.values()
    except ValueError:  # a callable without a signature
        return optax.with_extra_args_support(optimizer)
    if any(each.name == "value" or each.kind == each.VAR_KEYWORD for each in parameters):
        return optax.with_extra_args_support(optimizer)

    def update(updates: Any, state: Any, params: Any = None, **_: Any) -> tuple[Any, Any]:
        return optimizer.update(updates, state, params)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def differing(before: Any, after: Any) -> str:
    """Describe how the structure, the shapes or the dtypes of ``after`` differ; empty if they do not.

    >>> differing({"n": jnp.zeros((), int)}, {"n": jnp.zeros(())})
    "['n'] int32() before and float32()"
    """
    flat, other = (jax.tree_util.tree_leaves_with_path(tree) for tree in (before, after))
    there = {jax.tree_util.keystr(path): f"{leaf.dtype}{leaf.shape}" for path, leaf in flat}
    for path, leaf in other:
        name, kind = jax.tree_util.keystr(path), f"{leaf.dtype}{leaf.shape}"
        if (earlier := there.pop(name, "nothing")) != kind:
            return f"{name} {earlier} before and {kind}"
    if there:
        name, kind = next(iter(there.items()))
        return f"{name} {kind} before and nothing"
    first, second = (str(jax.tree.structure(tree)) for tree in (before, after))
    return "" if first == second else f"{first} before and {second}"


def learning_rate(settings: Settings, steps_per_epoch: int) -> optax.Schedule:
    """Learning rate as a function of the step; the settings count epochs.

    Raises:
      UserError: if the run has too many steps, or the warm-up is too long or not supported.
    """
    combinations.check_length(settings, steps_per_epoch)
    optimizer = settings.optimizer
    return schedules.learning_rate(
        optimizer.schedule,
        optimizer.learning_rate,
        settings.epochs * steps_per_epoch,
        warmup_steps=round(optimizer.warmup_epochs * steps_per_epoch),
        boundaries=tuple(epoch * steps_per_epoch for epoch in optimizer.drop_epochs),
        factor=optimizer.drop_factor,
    )


def term_weights(
    settings: Settings, steps_per_epoch: int, chosen: Sequence[TermSettings]
) -> dict[str, optax.Schedule]:
    """Weight of each term as a function of the step; the settings count epochs."""
    transfer, weights = settings.transfer, {}
    for each in chosen:
        first = each.begin_epoch * steps_per_epoch
        if each.beta is not None:
            schedule = schedules.decay(
                transfer.decay,
                each.beta,
                settings.epochs * steps_per_epoch,
                boundaries=tuple(epoch * steps_per_epoch for epoch in transfer.decay_epochs),
                factor=transfer.decay_factor,
            )
            weights[each.term.name] = schedules.begin(schedule, first)
        elif first:
            # A term that replaces the cross-entropy has the share 0 before it begins, then 1.
            weights[each.term.name] = schedules.begin(optax.constant_schedule(1.0), first)
    return weights
