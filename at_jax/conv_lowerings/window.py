"""The geometry of a convolution."""

import dataclasses
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from at_jax.errors import UserError

__all__ = [
    "DIMENSIONS",
    "Window",
    "inverse_padding",
    "make_window",
    "mirrored",
    "mirrored_kernel",
    "positive_pair",
    "transposed_window",
]

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@dataclasses.dataclass(frozen=True)
class Window:
    """The geometry that the three operations of one convolution share.

    Attributes:
      image: height and width of the images, in pixels.
      kernel: height and width of the kernel.
      strides: vertical and horizontal step, in pixels.
      padding: ``((top, bottom), (left, right))``, in pixels.
      dilation: vertical and horizontal distance between the kernel's taps, in pixels.
      groups: number of groups of channels that are convolved separately.
      precision: as in ``lax.conv_general_dilated``.
    """

    image: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    groups: int = 1
    precision: lax.PrecisionLike = None

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width of the dilated kernel, in pixels."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1

    @property
    def output(self) -> tuple[int, int]:
        """Height and width of the result of the forward convolution; 0 where the kernel does not fit."""
        return self._output(0), self._output(1)

    def _output(self, axis: int) -> int:
        padded = self.image[axis] + sum(self.padding[axis])
        return max((padded - self.extent[axis]) // self.strides[axis] + 1, 0)


def make_window(
    x: Sequence[int],
    w: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    dilation: Sequence[int] | None = None,
    groups: int = 1,
    precision: lax.PrecisionLike = None,
) -> Window:
    """Build the geometry of a convolution from the shapes x and w, and the arguments of lax.

    Raises:
      UserError: if an argument has no meaning, or the kernel is larger than the padded images.
    """
    image, kernel = (x[1], x[2]), (w[0], w[1])
    strides = positive_pair("window_strides", strides)
    dilation = (1, 1) if dilation is None else positive_pair("rhs_dilation", dilation)
    if isinstance(padding, str):
        extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
        padding = lax.padtype_to_pads(image, extent, strides, padding)
    window = Window(
        image=image,
        kernel=kernel,
        strides=strides,
        padding=_pads(padding),
        dilation=dilation,
        groups=groups,
        precision=tuple(precision) if isinstance(precision, list) else precision,
    )
    if 0 in window.output:
        raise UserError(
            f"a {kernel[0]}x{kernel[1]} kernel needs padded images of at least its size, got "
            f"{image[0]}x{image[1]} pixels padded by {window.padding}: use larger images or fewer strides"
        )
    return window


def positive_pair(name: str, values: Sequence[int]) -> tuple[int, int]:
    """Convert the argument ``name``, one number for each axis of the images.

    Raises:
      UserError: if it is not two positive integers.
    """
    try:
        first, second = (operator.index(value) for value in values)
    except (TypeError, ValueError):
        first = second = 0
    if min(first, second) < 1:
        raise UserError(
            f"conv_general_dilated: {name} must be two positive integers, got {values!r}: "
            "for example (1, 1)"
        )
    return first, second


def _pads(padding: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], tuple[int, int]]:
    try:
        (top, bottom), (left, right) = padding
        index = operator.index
        return (index(top), index(bottom)), (index(left), index(right))
    except (TypeError, ValueError):
        raise UserError(
            "conv_general_dilated: padding must be 'SAME', 'SAME_LOWER', 'VALID' or integers "
            f"((top, bottom), (left, right)), got {padding!r}: for example ((1, 1), (1, 1))"
        ) from None


def inverse_padding(window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding of g, with zeros between its pixels, for the input gradient."""
    padding = []
    for axis in range(2):
        low = window.extent[axis] - 1 - window.padding[axis][0]
        dilated = (window.output[axis] - 1) * window.strides[axis] + 1
        padding.append((low, window.image[axis] + window.extent[axis] - 1 - dilated - low))
    return padding[0], padding[1]


def mirrored(window: Window) -> Window:
    """The geometry of the input gradient at stride 1: of a convolution of g with the mirrored kernel."""
    return dataclasses.replace(window, image=window.output, padding=inverse_padding(window))


def mirrored_kernel(w: jax.Array, groups: int = 1) -> jax.Array:
    """(kh, kw, C / G, F) -> (kh, kw, F / G, C): the kernel of the input gradient."""
    kh, kw, channels, features = w.shape
    split = jnp.flip(w, (0, 1)).reshape(kh, kw, channels, groups, features // groups)
    return split.transpose(0, 1, 4, 3, 2).reshape(kh, kw, features // groups, groups * channels)


def transposed_window(
    x: Sequence[int],
    w: Sequence[int],
    spread: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    dilation: Sequence[int] | None = None,
    groups: int = 1,
    precision: lax.PrecisionLike = None,
) -> Window:
    """The geometry of which a convolution over x with zeros between its pixels is the input gradient.

    Args:
      x: shape of the images ``(B, H, W, C)``.
      w: shape of the kernel.
      spread: distance of the pixels of the images.
      padding: of the images with zeros between their pixels.
      dilation: of the kernel.
      groups: as in :class:`Window`.
      precision: as in :class:`Window`.

    Raises:
      UserError: if an argument has no meaning, or the kernel is larger than the padded images.
    """
    spread = positive_pair("lhs_dilation", spread)
    wide = tuple((n - 1) * s + 1 for n, s in zip(x[1:3], spread, strict=True))
    direct = make_window((x[0], *wide, x[3]), w, (1, 1), padding, dilation, groups, precision)
    inverse = [
        (extent - 1 - low, extent - 1 - high)
        for extent, (low, high) in zip(direct.extent, direct.padding, strict=True)
    ]
    return dataclasses.replace(
        direct, image=direct.output, strides=spread, padding=(inverse[0], inverse[1])
    )
