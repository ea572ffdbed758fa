r"""A convolution closed under differentiation.

A convolution ``y = conv(x, w)`` is bilinear, and so are the two operations of its gradient:

    forward        y = conv(x, w)
    input_grad     x' = conv_x^T(g, w)      (g has the shape of y)
    weight_grad    w' = conv_w^T(x, g)

All three come from one trilinear form ``<g, conv(x, w)>``, so each is the transpose of the others: the
derivative with respect to either operand is again one of the three. Each is a primitive here, so
derivatives of every order, forward or reverse, stay in the family.

``lax.conv_general_dilated`` does not have this property. The gradient of its gradient, for a strided
convolution, is a convolution with an image-sized kernel and ``lhs_dilation``, for which XLA has no fast
kernel (for GPU, see openxla/xla#34273). On CPU there is a second reason. XLA:CPU converts convolutions to
the one layout that has a fast kernel only in the entry computation, so those inside ``lax.scan`` fall back
to a loop nest. The family is therefore written in that layout, NHWC and HWIO.

This is the only file that uses ``jax.interpreters``. tests/arrays/test_conv.py lists the tested versions
of jax.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from at_jax import conv_lowerings
from at_jax.conv_lowerings import Window, shardings

__all__ = [
    "conv_general_dilated", "forward_p", "input_grad_p", "save_convolutions", "weight_grad_p",
]  # fmt: skip

_NHWC = lax.conv_dimension_numbers((1, 1, 1, 1), (1, 1, 1, 1), conv_lowerings.DIMENSIONS)

Shape = tuple[int, ...]


def _define(
    name: str, operation: str, output_shape: Callable[[Shape, Shape, Window], Shape]
) -> Primitive:
    """Define a bilinear primitive with one lowering for CPU and one for GPU and TPU."""
    primitive = Primitive(name)
    jitted = jax.jit(primitive.bind, static_argnames="window")

    def run(*operands, window):
        with jax.disable_jit(False):  # without jit, the call below would return here
            return jitted(*operands, window=window)

    primitive.def_impl(run)

    def abstract_eval(a, b, *, window):
        return a.update(shape=output_shape(a.shape, b.shape, window), weak_type=False)

    primitive.def_abstract_eval(abstract_eval)
    for lowerings, platform in ((conv_lowerings.as_lax, None), (conv_lowerings.cpu, "cpu")):
        lowering = mlir.lower_fun(getattr(lowerings, operation), multiple_results=False)
        mlir.register_lowering(primitive, _in_context_of_call(lowering), platform=platform)
    return primitive


def _in_context_of_call(lowering: Callable) -> Callable:
    """Lower under the settings of the call; jax lowers under those that hold where jit is called."""

    def lower(context, *operands, window):
        is_wide = context.avals_in[0].dtype.itemsize == 8
        with (
            jax.default_matmul_precision(None),  # that of the call is in the window
            jax.enable_x64(True) if is_wide else contextlib.nullcontext(),
        ):
            return lowering(context, *operands, window=window)

    return lower


forward_p = _define("at_conv", "forward", lambda x, w, window: (x[0], *window.output, w[3]))
input_grad_p = _define(
    "at_conv_input_grad",
    "input_grad",
    lambda g, w, window: (g[0], *window.image, w[2] * window.groups),
)
weight_grad_p = _define(
    "at_conv_weight_grad",
    "weight_grad",
    lambda x, g, window: (*window.kernel, x[3] // window.groups, g[3]),
)

# Transposes: with the form <g, conv(x, w)>, fixing two of x, w, g gives the third.
ad.defbilinear(
    forward_p,
    lambda g, x, w, *, window: input_grad_p.bind(g, w, window=window),
    lambda g, x, w, *, window: weight_grad_p.bind(x, g, window=window),
)
ad.defbilinear(
    input_grad_p,
    lambda x, g, w, *, window: forward_p.bind(x, w, window=window),
    lambda x, g, w, *, window: weight_grad_p.bind(x, g, window=window),
)
ad.defbilinear(
    weight_grad_p,
    lambda w, x, g, *, window: input_grad_p.bind(g, w, window=window),
    lambda w, x, g, *, window: forward_p.bind(x, w, window=window),
)


def _define_batching(
    primitive: Primitive, operation: str, free_axes: tuple[int, int], out_axes: tuple[int, int]
) -> None:
    """Define vmap within the family, for operands that each have an axis that the other lacks."""

    def rule(operands, dims, *, window):
        if shardings.is_explicit(*operands):
            by_lax = functools.partial(getattr(conv_lowerings.as_lax, operation), window=window)
            return jax.vmap(by_lax, in_axes=dims)(*operands), 0
        bind = functools.partial(primitive.bind, window=window)
        return conv_lowerings.batched(bind, operands, dims, window.groups, free_axes, out_axes)

    batching.primitive_batchers[primitive] = rule


_define_batching(forward_p, "forward", (0, 3), (0, 3))  # x (B), w (F) -> y (B..F)
_define_batching(input_grad_p, "input_grad", (0, 2), (0, 3))  # g (B), w (C) -> x (B..C)
_define_batching(weight_grad_p, "weight_grad", (3, 3), (2, 3))  # x (C), g (F) -> w (..CF)


def save_convolutions(primitive: Primitive, *operands: Any, **parameters: Any) -> bool:
    """Policy of ``jax.checkpoint`` that stores the results of convolutions and matrix products.

    Args:
      primitive: operation; ``jax.checkpoint`` passes all arguments.
      *operands: its operands.
      **parameters: its parameters.

    Returns:
      True for these operations. ``jax.checkpoint_policies.dots_saveable`` alone does not recognize the
      convolutions of this module.

    >>> layer = jax.checkpoint(lambda x, w: jax.nn.relu(x @ w), policy=save_convolutions)
    """
    is_dot = jax.checkpoint_policies.dots_saveable(primitive, *operands, **parameters)
    return is_dot or primitive in (forward_p, input_grad_p, weight_grad_p)


def _is_in_family(
    lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any, element_type: Any, groups: int
) -> bool:
    return (
        lhs.ndim == 4
        and dimension_numbers is not None
        and lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers) == _NHWC
        and lhs.dtype == rhs.dtype
        and element_type in (None, lhs.dtype)
        and lhs.shape[3] == rhs.shape[2] * groups
        and rhs.shape[3] % groups == 0
        and not shardings.is_explicit(lhs, rhs)
    )


def _is_transposed(spread: Sequence[int] | None) -> bool:
    return spread is not None and any(d != 1 for d in spread)


def _pads_by_lax(x: jax.Array, strides: Any, padding: Any, spread: Any) -> bool:
    """True for named padding of a transposed convolution (an error), or of a symbolic size at a stride."""
    if not isinstance(padding, str):
        return False
    is_symbolic = not all(isinstance(n, int) for n in x.shape[1:3]) and any(s != 1 for s in strides)
    return _is_transposed(spread) or (is_symbolic and padding.upper() != "VALID")


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: Any = None,
    out_sharding: Any = None,
) -> jax.Array:
    """Drop-in replacement for ``lax.conv_general_dilated``, for ``nn.Conv(conv_general_dilated=...)``.

    Two-dimensional NHWC/HWIO convolutions of any stride, padding, dilation and number of feature groups run
    in the closed family. All others (layouts, batch groups, one or three dimensions, mixed dtypes, another
    ``preferred_element_type``, explicit shardings) are passed to lax.
    ``vmap`` stays in the family; where it maps both operands, more than eight pairs are computed in a loop.
    The family has no rule for ``jax.experimental.jet``.

    On CPU, Winograd's form of 3x3 kernels gives NaN where an operand is infinite, and overflows earlier.

    Args:
      lhs: images, ``(B, H, W, C)``.
      rhs: kernel, ``(kh, kw, C / groups, F)``, of the dtype of ``lhs``.
      window_strides: steps of the window in pixels, ``(sh, sw)``.
      padding: ``"SAME"``, ``"VALID"`` or ``((top, bottom), (left, right))`` in pixels.
      lhs_dilation: distance between the pixels of ``lhs``, with zeros in between: a transposed convolution.
      rhs_dilation: distance between the kernel's taps in pixels, ``(dh, dw)``.
      dimension_numbers: as in lax; the family needs ``("NHWC", "HWIO", "NHWC")``.
      feature_group_count: groups of channels that are convolved separately; C for a depthwise convolution.
      batch_group_count: as in lax.
      precision: as in lax; ``jax.default_matmul_precision`` where the function is called, if None.
      preferred_element_type: as in lax.
      out_sharding: as in lax, which computes the convolution and its derivatives if this is given.

    Returns:
      ``(B, H', W', F)``.

    Raises:
      UserError: if a number is not as above, or the kernel is larger than the padded images.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
    >>> layout = ("NHWC", "HWIO", "NHWC")
    >>> conv_general_dilated(x, w, (2, 2), ((1, 1), (1, 1)), dimension_numbers=layout)[0, :, :, 0]
    Array([[4., 6.],
           [6., 9.]], dtype=float32)
    """
    rest = dimension_numbers, preferred_element_type, feature_group_count
    of_lax = batch_group_count != 1 or _pads_by_lax(lhs, window_strides, padding, lhs_dilation)
    if of_lax or out_sharding is not None or not _is_in_family(lhs, rhs, *rest):
        return lax.conv_general_dilated(
            lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers,
            feature_group_count, batch_group_count, precision, preferred_element_type, out_sharding,
        )  # fmt: skip
    geometry = padding, rhs_dilation, feature_group_count, precision
    return _in_family(lhs, rhs, window_strides, lhs_dilation, *geometry)


def _in_family(x, w, strides, spread, padding, dilation, groups, precision):
    x, w = shardings.with_equal_axes(x, w)
    precision = jax.config.jax_default_matmul_precision if precision is None else precision
    geometry = padding, dilation, groups, precision
    if not _is_transposed(spread):
        window = conv_lowerings.make_window(x.shape, w.shape, strides, *geometry)
        return forward_p.bind(x, w, window=window)
    # The convolution of x with zeros between its pixels is the input gradient of another one.
    strides = conv_lowerings.positive_pair("window_strides", strides)
    window = conv_lowerings.transposed_window(x.shape, w.shape, spread, *geometry)
    y = input_grad_p.bind(x, conv_lowerings.mirrored_kernel(w, groups), window=window)
    return y[:, :: strides[0], :: strides[1]]
