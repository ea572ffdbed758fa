"""Gradient transfer by forward-over-reverse differentiation; the library uses reverse over reverse.

Let v be the gradient of the term with respect to J, held fixed. The gradient of <v, J> with respect to the
parameters is the derivative of the first-order gradient in direction v: a ``jax.jvp`` of a ``jax.grad``.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from at_jax import gradients, losses
from at_jax.errors import UserError
from at_jax.objective import Objective, Outputs
from at_jax.terms import GradientTransfer

__all__ = ["forward_over_reverse"]


def _only_term(objective: Objective) -> GradientTransfer:
    terms = objective.terms
    if len(terms) == 1 and isinstance(terms[0], GradientTransfer) and terms[0].temperature == 1:
        return terms[0]
    raise UserError(
        f"forward over reverse is written for GradientTransfer() alone, got {terms}: pass "
        "terms=(GradientTransfer(),)"
    )


def forward_over_reverse(objective: Objective) -> Callable[..., tuple[jax.Array, Outputs]]:
    """An objective whose gradient is computed by forward over reverse.

    Args:
      objective: with :class:`at_jax.terms.GradientTransfer` at temperature 1 as its only term.

    Returns:
      A function with the signature of the objective. ``jax.grad`` of it with respect to the parameters
      uses the other mode.

    Raises:
      UserError: if the objective has other terms.
    """
    squared = _only_term(objective).squared

    @jax.custom_vjp
    def loss(params: Any, *rest: Any) -> tuple[jax.Array, Outputs]:
        return objective(params, *rest)

    def forward(params, *rest):
        collections, teacher_variables, images, labels, weights, *keys = rest
        j_t = objective.view_teacher(teacher_variables, images, labels, *keys).gradient()
        beta, size = weights["gradient_at"], images.shape[0]

        def summed(params, images):
            logits, mutated = objective.student.apply(
                {"params": params["student"], **collections},
                images,
                train=True,
                mutable=tuple(collections),
            )
            ce = losses.cross_entropy(logits, labels)
            return jnp.sum(ce), (ce, logits, dict(collections) | dict(mutated))

        first, (ce, logits, mutated) = jax.grad(summed, (0, 1), has_aux=True)(params, images)
        by_params, j_s = first
        term, pull_back = jax.vjp(
            lambda j: gradients.gradient_transfer(j, j_t, squared=squared), j_s
        )
        (direction,) = pull_back(jnp.full_like(term, beta / size))  # (B, H, W, C)
        _, second = jax.jvp(
            lambda images: jax.grad(summed, has_aux=True)(params, images)[0],
            (images,),
            (direction,),
        )
        gradient = jax.tree.map(lambda a, b: a / size + b, by_params, second)
        value = jnp.mean(ce) + beta * jnp.mean(term)
        outputs = Outputs({"cross_entropy": ce, "gradient_at": term}, logits, mutated, {})
        return (value, outputs), (gradient, (None,) * len(rest))

    def backward(residuals, cotangents):
        gradient, of_rest = residuals
        by_loss, _ = cotangents
        return jax.tree.map(lambda g: by_loss * g, gradient), *of_rest

    loss.defvjp(forward, backward)
    return loss
