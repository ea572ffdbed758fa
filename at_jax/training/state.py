"""State of training: everything that a step changes."""

from collections.abc import Mapping, Sequence
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
    "TrainState", "carried_collections", "create", "key_types", "parameter_count", "replaced",
    "variables_of", "with_keys", "without_keys",
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


def without_keys(tree: Any) -> Any:
    """Replace typed PRNG keys, such as those of an optimizer that adds noise, by their numbers."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def key_types(tree: Any) -> list[Any]:
    """Implementation of each leaf that is a typed PRNG key, and None for the others."""
    return [jax.random.key_impl(x) if _is_key(x) else None for x in jax.tree.leaves(tree)]


def with_keys(tree: Any, types: Sequence[Any]) -> Any:
    """Undo :func:`without_keys`; ``types`` are those of :func:`key_types`."""
    leaves, structure = jax.tree.flatten(tree)
    wrapped = [
        leaf if kind is None else jax.random.wrap_key_data(leaf, impl=kind)
        for leaf, kind in zip(leaves, types, strict=True)
    ]
    return jax.tree.unflatten(structure, wrapped)


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


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
