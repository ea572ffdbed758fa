"""State of training: everything that a step changes."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from at_jax.intermediates import initialize
from at_jax.terms import parameters

__all__ = [
    "TrainState", "carried_collections", "create", "parameter_count", "replaced", "variables_of",
]  # fmt: skip


class TrainState(flax.struct.PyTreeNode):
    """State of training. The teacher is not part of it.

    Attributes:
      step: number of updates so far, int32 scalar.
      params: ``{"student": ..., <term>: ...}``: a term with a module of its own has an entry.
      collections: the student's other collections, such as ``batch_stats``.
      opt_state: of the optimizer.
    """

    step: jax.Array
    params: Any
    collections: Any
    opt_state: Any


def variables_of(state: TrainState) -> dict[str, Any]:
    """Variables of the student, for ``module.apply``."""
    return {"params": state.params["student"], **state.collections}


def carried_collections(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Collections of freshly initialized variables that one step passes to the next.

    Parameters are trained instead. Sown values, which are tuples, belong to a single forward pass.

    >>> carried_collections({"params": {}, "batch_stats": {"mean": 0.0}, "losses": {"l2": (1.0,)}})
    {'batch_stats': {'mean': 0.0}}
    """
    return {
        name: tree
        for name, tree in variables.items()
        if name != "params"
        and not any(
            isinstance(entry, jax.tree_util.SequenceKey)
            for path, _ in jax.tree_util.tree_leaves_with_path(tree)
            for entry in path
        )
    }


def replaced(variables: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the variables of a network that are in another, possibly incomplete, tree."""
    old, new = (traverse_util.flatten_dict(dict(tree)) for tree in (variables, by))
    return traverse_util.unflatten_dict(old | new)


def create(
    student: nn.Module,
    modules: Mapping[str, nn.Module],
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    image_shape: tuple[int, int, int],
    taps: Mapping[str, jax.ShapeDtypeStruct],
    initial: Mapping[str, Any] | None = None,
) -> TrainState:
    """Initialize the state; within ``jax.jit``, or each parameter is compiled as a program of its own.

    Args:
      student: the network to train.
      modules: of the terms, by term name; see :meth:`at_jax.objective.Objective.modules`.
      optimizer: its state is initialized too.
      key: of the initialization.
      image_shape: (H, W, C).
      taps: shapes of the student's activations ``(B, H, W, C)``, on which modules are initialized.
      initial: the student's variables; those that it lacks are initialized.

    Returns:
      The state before the first step.
    """
    key_student, key_modules = jax.random.split(key)
    images = jnp.zeros((1, *image_shape))
    variables = initialize(student, key_student, images)
    if initial is not None:
        variables = replaced(variables, initial)
    of_terms = parameters.initialize(modules, key_modules, taps)
    params = {"student": variables["params"], **of_terms}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        collections=carried_collections(variables),
        opt_state=optimizer.init(params),
    )


def parameter_count(params: Any) -> int:
    """Total number of elements in a pytree of arrays.

    >>> import numpy as np
    >>> parameter_count({"kernel": np.zeros((3, 4)), "bias": np.zeros(4)})
    16
    """
    return sum(leaf.size for leaf in jax.tree.leaves(params))
