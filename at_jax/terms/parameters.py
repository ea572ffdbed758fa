"""Parameters of terms that have modules of their own, such as an adapter."""

from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax.terms import interface
from at_jax.terms.base import Term

__all__ = ["initialize", "modules_of"]


def modules_of(
    terms: Iterable[Term],
    points: tuple[tuple[str, str], ...],
    taps_s: Mapping[str, Any],
    taps_t: Mapping[str, Any],
) -> dict[str, nn.Module]:
    """Modules of the terms that have trainable parameters, by term name; see :meth:`Term.module`."""
    made = {}
    for term in terms:
        with interface.explained(term, "module", points, taps_s, taps_t):
            if (module := term.module(points, taps_s, taps_t)) is not None:
                made[term.name] = module
    return made


def initialize(
    modules: Mapping[str, nn.Module], key: jax.Array, taps: Mapping[str, Any]
) -> dict[str, Any]:
    """Initialize the modules of terms.

    Args:
      modules: by term name, see :meth:`at_jax.objective.Objective.modules`.
      key: PRNG key.
      taps: of the student, or their shapes ``(B, H, W, C)``.

    Returns:
      Term name to parameters.
    """
    zeros = {point: jnp.zeros(tap.shape) for point, tap in taps.items()}
    params = {}
    for index, (name, module) in enumerate(modules.items()):
        # Not folded for the first: initial values do not depend on whether others follow.
        of_module = jax.random.fold_in(key, index) if index else key
        params[name] = module.init(of_module, zeros)["params"]
    return params
