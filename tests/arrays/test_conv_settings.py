"""Arguments of the closed convolution, and settings of jax that hold where it is called.

The settings are the precision, 64 bits, and whether functions are jitted.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from convolutions import (
    LAYOUT,
    assert_close,
    closed_conv,
    derivatives,
    lax_conv,
    lax_derivatives,
    operands,
)
from jax import export, lax

from at_jax.conv import conv_general_dilated
from at_jax.errors import UserError


def highest(conv, precision=None, context="highest"):
    """Gradients of a convolution of this precision, called in this context."""

    def total(x, w):
        with jax.default_matmul_precision(context):
            y = conv(x, w, (2, 2), "SAME", dimension_numbers=LAYOUT, precision=precision)
        return jnp.sum(jnp.sin(y))

    return jax.jit(jax.grad(total, argnums=(0, 1)))


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_precision_context_within_jit_holds_for_all_derivatives(platform):
    counts = []
    for conv in (conv_general_dilated, lax.conv_general_dilated):
        lowered = highest(conv).trace(*operands()).lower(lowering_platforms=(platform,))
        counts.append(lowered.as_text().count("HIGHEST"))
    # Three operations, two operands each. On CPU, the form for narrow layers has one more product.
    assert counts[1] == 6 and (counts[0] == 6 if platform == "cuda" else counts[0] >= 6)


def test_precision_of_the_call_takes_precedence_over_the_context():
    lowered = highest(conv_general_dilated, lax.Precision.HIGH).trace(*operands())
    text = lowered.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("HIGHEST") == 0 and "HIGH" in text


def test_precision_context_of_compilation_does_not_change_a_traced_call():
    traced = highest(conv_general_dilated, context=None).trace(*operands())
    with jax.default_matmul_precision("highest"):
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "HIGH" not in text


def test_conv_without_a_precision_has_the_default():
    equations = jax.make_jaxpr(closed_conv)(*operands()).jaxpr.eqns
    assert [equation.params["window"].precision for equation in equations] == [None]


def test_symbolic_batch_with_named_padding_stays_in_the_family():
    shape = jax.ShapeDtypeStruct(export.symbolic_shape("b,8,7,2"), jnp.float32)
    run = jax.jit(lambda x, w: closed_conv(x, w, (2, 2), "SAME"))
    assert "at_conv[" in str(run.trace(shape, operands()[1]).jaxpr)


@pytest.mark.parametrize("stride", [1, 2])
def test_64_bits_within_jit_hold_for_all_derivatives(stride):
    x, w = (np.asarray(a, np.float64) for a in operands((8, 8), channels=(32, 32)))

    def run(conv):
        def everything():
            with jax.enable_x64(True):
                arrays = jnp.asarray(x), jnp.asarray(w)
                window = ((stride, stride), ((1, 1), (1, 1)))
                values = derivatives(lambda x, w: conv(x, w, *window))(*arrays)
                return jax.tree.map(lambda a: a.astype(jnp.float32), values)

        return tiny.jit(everything)()

    assert_close(run(closed_conv), run(lax_conv), 1e-6)


def test_64_bits_of_tracing_hold_where_lowering_has_32():
    arrays = [np.asarray(a, np.float64) for a in operands((8, 8), channels=(32, 32))]
    with jax.enable_x64(True):
        traced = tiny.jit(jax.grad(lambda x, w: jnp.sum(jnp.sin(closed_conv(x, w))))).trace(*arrays)
    assert "f64" in traced.lower().as_text()


def test_conv_and_its_derivatives_run_without_jit():
    operands_ = operands()
    with jax.disable_jit():
        found = derivatives(closed_conv)(*operands_)
    assert_close(found, lax_derivatives(*operands_))


PLAIN = {"window_strides": (1, 1), "padding": ((1, 1), (1, 1)), "dimension_numbers": LAYOUT}


@pytest.mark.parametrize(
    "changes",
    [
        {"padding": 1},
        {"padding": (1, 1)},
        {"padding": ((1.5, 1), (1, 1))},
        {"window_strides": (0, 1)},
        {"window_strides": (-1, 1)},
        {"window_strides": (1.5, 1)},
        {"window_strides": (1,)},
        {"window_strides": (0, 1), "padding": "SAME"},
        {"window_strides": (0, 1), "lhs_dilation": (2, 2)},
        {"lhs_dilation": (0, 1)},
        {"lhs_dilation": (2, 1, 1)},
        {"rhs_dilation": (0, 1)},
    ],
    ids=str,
)
def test_argument_without_a_meaning_raises_user_error(changes):
    name = "padding" if len(changes) == 1 and "padding" in changes else next(iter(changes))
    with pytest.raises(
        UserError, match=f"conv_general_dilated: {name} must be .* got .*: for example"
    ):
        conv_general_dilated(*operands((8, 8)), **(PLAIN | changes))


@pytest.mark.parametrize(
    "options",
    [
        {"lhs_dilation": np.array([2, 1])},
        {"lhs_dilation": np.array([1, 1]), "rhs_dilation": np.array([1, 2])},
        {"window_strides": np.array([2, 1]), "padding": np.array([[1, 0], [2, 1]])},
    ],
    ids=str,
)
def test_conv_with_lists_and_numpy_arrays_equals_lax(options):
    convs = conv_general_dilated, lax.conv_general_dilated
    assert_close(*(conv(*operands(), **(PLAIN | options)) for conv in convs))


def test_conv_with_a_list_of_two_precisions_has_both():
    precision = [lax.Precision.HIGH, lax.Precision.HIGHEST]
    run = lambda x, w: conv_general_dilated(x, w, **PLAIN, precision=precision)  # noqa: E731
    (equation,) = jax.make_jaxpr(run)(*operands()).jaxpr.eqns
    assert equation.params["window"].precision == tuple(precision)


def test_conv_is_exported_with_symbolic_sizes_and_named_padding():
    x, w = operands((8, 7), batch=3)
    shape = jax.ShapeDtypeStruct(export.symbolic_shape("b,h,w,2"), x.dtype)
    run = jax.jit(lambda x, w: closed_conv(x, w, (2, 2), "SAME"))  # by lax
    exported = export.export(run)(shape, jax.ShapeDtypeStruct(w.shape, w.dtype))
    assert_close(exported.call(x, w), lax_conv(x, w, (2, 2), "SAME"))
