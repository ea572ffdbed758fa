"""Parameters of terms that have modules of their own, such as an adapter."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

__all__ = ["initialize"]


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
