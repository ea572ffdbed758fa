"""Networks traced on shapes: outputs, transfer points and memory, without computing anything."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax import intermediates
from at_jax.training.components import memory, modules

__all__ = ["Shapes", "shapes"]


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Shapes of a network's forward pass over one image.

    Attributes:
      variables: all collections, without sown values.
      logits: (1, K).
      taps: transfer point to activation, in the order of the network.
      stored: numbers that the convolutions and products of one image compute, which a backward pass reads.
    """

    variables: dict[str, Any]
    logits: jax.ShapeDtypeStruct
    taps: dict[str, jax.ShapeDtypeStruct]
    stored: int = 0


def shapes(
    module: nn.Module,
    image_shape: tuple[int, int, int],
    whose: str,
    paths: Sequence[str] = (),
    **kwargs: Any,
) -> Shapes:
    """Trace initialization and evaluation of a network, without computing anything.

    Args:
      module: the network.
      image_shape: (H, W, C).
      whose: ``"student"`` or ``"teacher"``, for messages.
      paths: submodules whose output is captured.
      **kwargs: further arguments of the evaluation, such as ``deterministic``.

    Raises:
      UserError: if the module does not take or return what the trainer expects.
    """
    modules.check_is_module(module, whose)
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with modules.translated_errors(module, whose):
        initialize = functools.partial(intermediates.initialize, module)
        variables = jax.eval_shape(initialize, jax.random.key(0), images)
        forward = functools.partial(
            intermediates.forward,
            module,
            paths=tuple(paths),
            check_paths=False,
            train=False,
            **kwargs,
        )

        def apply(variables, images):
            logits, taps, mutated = forward(variables, images)
            # JAX sorts the keys of a dict.
            return logits, collections.OrderedDict(taps), mutated.get("batch_stats", {})

        jaxpr, (logits, taps, statistics) = jax.make_jaxpr(apply, return_shape=True)(
            variables, images
        )
        modules.check_logits(logits, module, whose)
        if statistics and _depends_on_images(lambda v, x: apply(v, x)[2], variables, images):
            raise modules.uses_batch_statistics(module, whose)
    return Shapes(variables, logits, dict(taps), memory.stored_numbers(jaxpr.jaxpr))


def _depends_on_images(
    function: Callable[[Any, jax.Array], Any], variables: Any, images: jax.ShapeDtypeStruct
) -> bool:
    """Whether a result of a forward pass depends on the images, also within nn.remat, nn.jit or nn.scan."""
    batches = jax.ShapeDtypeStruct((2, *images.shape), images.dtype)
    # vmap refuses to return what depends on the mapped axis without that axis.
    without_axis = jax.vmap(function, in_axes=(None, 0), out_axes=None)
    try:
        jax.eval_shape(without_axis, variables, batches)
    except (ValueError, NotImplementedError) as error:  # or an operation has no rule for vmap
        return "out_axes" in str(error)
    return False
