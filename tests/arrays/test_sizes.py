"""Array functions of no examples, and of a symbolic number of examples, as in jax.export."""

import jax
import jax.numpy as jnp
import pytest
from jax import export

from at_jax import gradients, losses, maps


def distillation(logits, labels):
    return losses.distillation(logits, 2 * logits, labels, temperature=4.0, alpha=0.9)


def attention_transfer(**options):
    return lambda a: losses.attention_transfer(a, maps.pool(a, (2, 3)), **options)


# Name to a function of (B, 4, 4, 3), or of logits (B, 5) and labels (B,).
OF_ACTIVATIONS = {
    "sum_map": maps.sum_map,
    "max_map": maps.max_map,
    "channel_map": maps.channel_map,
    "normalize": maps.normalize,
    "l2_norm": maps.l2_norm,
    "resize": lambda a: maps.resize(a[..., 0], (2, 3)),
    "pool": lambda a: maps.pool(a, (2, 3)),
    "activation_transfer": lambda a: losses.activation_transfer(a, 2 * a),
    "gradient_transfer": lambda a: gradients.gradient_transfer(a, 2 * a),
    "flip_symmetry": lambda a: gradients.flip_symmetry(a, a),
    "gradient_penalty": gradients.gradient_penalty,
    "gradient_penalty squared": lambda a: gradients.gradient_penalty(a, squared=True),
    "value_and_input_gradient": lambda a: gradients.value_and_input_gradient(maps.l2_norm, a)[1],
    **{f"attention_transfer {kind}": attention_transfer(kind=kind) for kind in losses.KINDS},
    "attention_transfer paper": attention_transfer(convention="paper"),
    "attention_transfer pool": attention_transfer(align="pool"),
}
OF_LOGITS = {"cross_entropy": losses.cross_entropy, "distillation": distillation}


def with_gradient(function):
    """Value, and gradient of its sum with respect to the first argument."""
    return lambda x, *rest: (function(x, *rest), jax.grad(lambda y: function(y, *rest).sum())(x))


def arguments(name, size):
    """Function, and shapes and dtypes of its arguments."""
    if name in OF_LOGITS:
        shapes = (
            jax.ShapeDtypeStruct((size, 5), jnp.float32),
            jax.ShapeDtypeStruct((size,), jnp.int32),
        )
        return with_gradient(OF_LOGITS[name]), shapes
    return with_gradient(OF_ACTIVATIONS[name]), (
        jax.ShapeDtypeStruct((size, 4, 4, 3), jnp.float32),
    )


@pytest.mark.parametrize("name", [*OF_ACTIVATIONS, *OF_LOGITS])
def test_function_of_no_examples_returns_no_rows(name):
    function, shapes = arguments(name, 0)
    value, gradient = function(*(jnp.zeros(each.shape, each.dtype) for each in shapes))
    assert value.shape[0] == 0 and gradient.shape == shapes[0].shape


@pytest.mark.parametrize("name", [*OF_ACTIVATIONS, *OF_LOGITS])
def test_function_is_exported_with_a_symbolic_batch(name):
    (size,) = export.symbolic_shape("b")
    function, shapes = arguments(name, size)
    value, gradient = export.export(jax.jit(function))(*shapes).out_avals
    assert value.shape[0] == size and gradient.shape == shapes[0].shape
