"""Gradient-based attention transfer differentiated another way than the library does it.

The library takes reverse over reverse. Here the same gradient comes from forward over reverse: with
v the gradient of the term by J, held fixed, the gradient of <v, J> by the parameters is the derivative
in direction v of the first-order gradient, one ``jax.jvp`` of one ``jax.grad``.
"""

import jax
import jax.numpy as jnp

from at_jax import gradients, intermediates, losses
from at_jax.objective import Objective, Outputs


def forward_over_reverse(objective: Objective):
    """The objective, its gradient computed by forward over reverse; for method gradient_at alone.

    Args:
      objective: with the term ``gradient_at`` and no other beside the cross-entropy.

    Returns:
      A function to call as the objective; ``jax.grad`` of it by the parameters runs the other mode.
    """

    @jax.custom_vjp
    def loss(params, *rest):
        return objective(params, *rest)

    def forward(params, batch_stats, teacher_variables, images, labels, weights):
        _, _, j_t = objective.teach(teacher_variables, images, labels)
        scale = weights["gradient_at"] / images.shape[0]

        def summed(params, images):
            logits, mutated = objective.student.apply(
                {"params": params["student"], "batch_stats": batch_stats},
                images,
                train=True,
                mutable=["batch_stats", intermediates.COLLECTION],
            )
            ce = losses.cross_entropy(logits, labels)
            return jnp.sum(ce), (ce, logits, mutated.get("batch_stats", batch_stats))

        (by_params, j_s), (ce, logits, moved) = jax.grad(summed, (0, 1), has_aux=True)(
            params, images
        )
        squared = objective.gradient_at.squared
        term, pull_back = jax.vjp(
            lambda j: gradients.gradient_transfer(j, j_t, squared=squared), j_s
        )
        (direction,) = pull_back(jnp.full_like(term, scale))  # (B, H, W, C)
        _, second = jax.jvp(
            lambda images: jax.grad(summed, has_aux=True)(params, images)[0],
            (images,),
            (direction,),
        )
        gradient = jax.tree.map(lambda a, b: a / images.shape[0] + b, by_params, second)
        value = jnp.mean(ce) + weights["gradient_at"] * jnp.mean(term)
        outputs = Outputs({"cross_entropy": ce, "gradient_at": term}, logits, moved)
        return (value, outputs), gradient

    def backward(gradient, cotangents):
        by_loss, _ = cotangents
        return (jax.tree.map(lambda g: by_loss * g, gradient), *(None,) * 5)

    loss.defvjp(forward, backward)
    return loss
