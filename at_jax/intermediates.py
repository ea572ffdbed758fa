"""Transfer points: how a network shows its activations, and how they are read.

A module calls :func:`tap` where it wants to be looked at; after
``model.apply(variables, images, mutable=["intermediates"])`` the activations are read with
:func:`collect`. Flax's ``sow`` does nothing unless the collection is mutable, so a tap costs nothing
in ordinary use.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
from flax import traverse_util

COLLECTION = "intermediates"


def tap(module: nn.Module, name: str, value: jax.Array) -> None:
    """Expose an activation of ``module`` under ``name``.

    Args:
      module: the linen module in whose ``__call__`` this stands.
      name: the name of the transfer point, unique in the module, for example ``"group1"``.
      value: the activation, ``(B, H, W, C)``.

    >>> import flax.linen as nn, jax.numpy as jnp
    >>> class Net(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x):
    ...         tap(self, "input", x)
    ...         return x
    >>> _, mutated = Net().apply({}, jnp.ones((1, 2, 2, 3)), mutable=["intermediates"])
    >>> collect(mutated)["input"].shape
    (1, 2, 2, 3)
    """
    module.sow(COLLECTION, name, value)


def collect(mutated: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The tapped activations of one forward pass.

    Args:
      mutated: the second result of ``model.apply(..., mutable=["intermediates"])``; other mutable
        collections may stand beside it.

    Returns:
      Name to activation ``(B, H, W, C)``, in the order of the network. Taps of submodules carry
      their path: ``"encoder/group1"``.

    Raises:
      ValueError: if a name was tapped more than once in one pass.
    """
    flat = traverse_util.flatten_dict(dict(mutated.get(COLLECTION, {})), sep="/")
    taps = {}
    for name, values in flat.items():
        if len(values) != 1:
            raise ValueError(
                f"transfer point {name!r} must be tapped once in a forward pass, got {len(values)}: "
                "give every tap of the module a name of its own"
            )
        taps[name] = values[0]
    return taps


def check_points(wanted: Iterable[str], found: Iterable[str], whose: str) -> None:
    """Raise unless every wanted transfer point was found.

    Args:
      wanted: names that a loss asks for.
      found: names that the network taps.
      whose: ``"student"`` or ``"teacher"``, for the message.

    Raises:
      ValueError: naming what is missing and what there is.
    """
    found = tuple(found)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(
            f"{whose} has no transfer point {', '.join(map(repr, missing))}; it taps "
            f"{', '.join(map(repr, found)) or 'nothing'}: choose among these in config.transfer.points, "
            "or tap the activation in the module with at_jax.intermediates.tap"
        )
