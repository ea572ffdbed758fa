"""Checks of the arguments of array functions."""

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from at_jax.errors import UserError

__all__ = [
    "NORMALIZE", "check_array", "check_equal", "check_exponent", "check_floating", "check_positive",
    "check_rank", "check_scalar",
]  # fmt: skip

_CAST = "convert it first, for example with x.astype(jnp.float32)"
# Advice for images.
NORMALIZE = "normalize them first with at_jax.data.normalize(images, mean, std)"

_SINGLE = ", or index the batch with [None] if it is a single example"
_STACKED = ", or call it once for each layer if nn.scan or nn.vmap stacked them"
# Advice by the expected rank, and how many axes there are in addition.
_RANK_FIXES = {
    **{(rank, -1): _SINGLE for rank in (2, 3, 4)},
    **{(rank, 1): _STACKED for rank in (3, 4)},
}


def check_array(function: str, *, floating: bool = True, fix: str = _CAST, **arrays: Any) -> None:
    """Raise unless every argument is an array of examples, with at least one number in each example.

    Args:
      function: name of the calling function, for the message.
      floating: raise unless the numbers are floating point.
      fix: advice if they are not.
      **arrays: argument name to array.

    Raises:
      UserError: naming the function, the argument, and its type, shape or dtype.
    """
    for name, array in arrays.items():
        shape = getattr(array, "shape", None)
        if not shape:
            got = "a scalar" if shape == () else type(array).__name__
            raise UserError(
                f"{function}: {name} must be an array (B, ...), got {got}: convert or reshape it"
            )
        _check_not_foreign(function, name, array)
        _check_not_empty(function, name, shape)
    if floating:
        check_floating(function, fix, **arrays)


def _check_not_foreign(function: str, name: str, array: Any) -> None:
    """Raise for an array of another library, such as a tensor of PyTorch, whose dtype is its own."""
    if not isinstance(getattr(array, "dtype", None), np.dtype):
        kind = f"{type(array).__module__}.{type(array).__name__}"
        raise UserError(
            f"{function}: {name} must be an array of JAX or NumPy, got {kind}: convert it, for example "
            "with jnp.asarray(x.numpy())"
        )


def _check_not_empty(function: str, name: str, shape: tuple[int, ...]) -> None:
    if 0 in shape[1:]:
        raise UserError(
            f"{function}: {name} must have at least one number per example, got shape {tuple(shape)}: "
            "pass larger images, or choose another layer"
        )


def check_equal(function: str, what: str, first: object, second: object, fix: str) -> None:
    """Raise unless two properties of the arguments are equal.

    Args:
      function: name of the calling function, for the message.
      what: name of the two properties, in the plural.
      first: of one argument.
      second: of the other.
      fix: advice if they differ.

    Raises:
      UserError: naming both.
    """
    if first != second:
        raise UserError(f"{function}: {what} must be equal, got {first} and {second}: {fix}")


def check_exponent(function: str, p: Any, most: float = math.inf) -> float:
    """Return the exponent of an attention map as a Python number, which may be a static argument.

    Args:
      function: name of the calling function, for the message.
      p: a number of Python or NumPy, or an array without axes that is not traced.
      most: largest exponent.

    Returns:
      ``p``, finite and from 1 to ``most``.

    Raises:
      UserError: naming the function and the value.
    """
    number = _number(p)
    if number is None or not 1 <= number <= most:
        expected = "a finite number of at least 1" if most == math.inf else f"from 1 to {most}"
        got = f"{p!r}: the paper uses p=2"
        if isinstance(p, jax.core.Tracer):
            got = "a traced array: mark it static, static_argnames='p'"
        raise UserError(f"{function}: the exponent p must be {expected}, got {got}")
    return number


def check_positive(function: str, name: str, value: Any) -> float:
    """Return a number as a Python float. Raise unless it is finite and above 0.

    Args:
      function: name of the calling function, for the message.
      name: of the argument.
      value: a number of Python or NumPy, or an array without axes that is not traced.

    Returns:
      The number.

    Raises:
      UserError: naming the function, the argument and the value.
    """
    number = _number(value)
    if number is None or number <= 0:
        is_traced = isinstance(value, jax.core.Tracer)
        got = "a traced array: mark it static" if is_traced else f"{value!r}: pass one number"
        raise UserError(f"{function}: {name} must be a finite number above 0, got {got}")
    return float(number)


def _number(value: Any) -> float | None:
    """A finite real number as Python's; None for anything else, and for traced arrays."""
    if getattr(value, "shape", None) == () and not isinstance(value, jax.core.Tracer):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        is_finite = math.isfinite(value)
    except OverflowError:  # beyond every float
        return None
    if not is_finite:
        return None
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def check_floating(function: str, fix: str = _CAST, **arrays: Any) -> None:
    """Raise unless every array is floating point.

    Args:
      function: name of the calling function, for the message.
      fix: advice if one is not.
      **arrays: argument name to array.

    Raises:
      UserError: naming the function, the argument and its dtype.
    """
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise UserError(f"{function}: {name} must be floating point, got {array.dtype}: {fix}")


def check_rank(
    function: str, rank: int, *, floating: bool = True, fix: str = _CAST, **arrays: Any
) -> None:
    """Raise unless every array has the given rank, and at least one number in each example.

    Args:
      function: name of the calling function, for the message.
      rank: expected number of axes.
      floating: raise unless the numbers are floating point.
      fix: advice if they are not.
      **arrays: argument name to array.

    Raises:
      UserError: naming the function, the argument, and its shape and the expected rank, or its dtype.
    """
    for name, array in arrays.items():
        shape = getattr(array, "shape", None)
        if shape is None:
            holds_arrays = isinstance(array, list | tuple) and any(
                getattr(each, "shape", ()) for each in array
            )
            advice = "convert it with jnp.asarray"
            if holds_arrays or isinstance(array, dict):
                advice = "call it for each and add the results"
            raise UserError(
                f"{function}: {name} must be an array of rank {rank}, got {type(array).__name__}: "
                f"{advice}"
            )
        _check_not_foreign(function, name, array)
        if len(shape) != rank:
            raise UserError(
                f"{function}: {name} must have rank {rank}, got shape {tuple(shape)}: "
                f"reshape it{_RANK_FIXES.get((rank, len(shape) - rank), '')}"
            )
        _check_not_empty(function, name, shape)
    if floating:
        check_floating(function, fix, **arrays)


def check_scalar(function: str, **values: Any) -> None:
    """Raise unless every value is a number or an array without axes.

    Args:
      function: name of the calling function, for the message.
      **values: argument name to value.

    Raises:
      UserError: naming the function, the argument, and its type or shape.
    """
    for name, value in values.items():
        shape = getattr(value, "shape", None)
        if shape != () and not (shape is None and isinstance(value, int | float)):
            got = type(value).__name__ if shape is None else f"shape {tuple(shape)}"
            raise UserError(
                f"{function}: {name} must be a number or a scalar array, got {got}: pass one number for "
                "all examples"
            )
