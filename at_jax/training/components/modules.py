"""Checks of modules and functions that the user passes."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.errors
import flax.linen as nn

from at_jax.errors import UserError, one_line, traceable
from at_jax.terms import networks

__all__ = [
    "check_function", "check_is_module", "check_logits", "is_module_class", "translated_errors",
    "uses_batch_statistics",
]  # fmt: skip

_CALL = "module.apply(variables, images, train=...) must return logits (B, K)"


def check_is_module(module: Any, whose: str) -> None:
    """Raise unless an argument is an instance of a linen module.

    Raises:
      UserError: naming what to pass.
    """
    if isinstance(module, nn.Module):
        try:
            hash(module)
        except TypeError as error:
            raise UserError(
                f"{whose} {type(module).__name__} must have hashable fields ({error}), such as tuples "
                "instead of lists, dicts or arrays: change the fields"
            ) from error
        return
    # The advice for an objective, to pass variables in its call, does not apply here.
    if isinstance(module, Mapping | tuple | list):
        fix = f"got {type(module).__name__}: pass a flax.linen.Module"
        if isinstance(module, Mapping):
            fix = "got variables: pass (module, variables), in this order"
        raise UserError(f"{whose} must be an instance of a linen module, {fix}")
    networks.check_is_module(module, whose)


@contextlib.contextmanager
def translated_errors(module: nn.Module, whose: str) -> Iterator[None]:
    """Turn errors of JAX, Flax and Python about a module's call into a UserError.

    Args:
      module: whose call is traced.
      whose: ``"student"`` or ``"teacher"``.
    """
    name = type(module).__name__
    try:
        with traceable(f"{whose} {name}"):
            yield
    except flax.errors.InvalidRngError as error:
        raise UserError(
            f"{whose} {name} draws random numbers with train=False (for example, dropout): make it "
            "deterministic there, for example nn.Dropout(rate, deterministic=not train)"
        ) from error
    except flax.errors.ScopeCollectionNotFound as error:
        raise UserError(
            f"{whose} {name} must create all its variables with train=False, which initializes them: "
            f"{one_line(error)}"
        ) from error
    except TypeError as error:
        for argument in ("train", "deterministic"):
            if f"unexpected keyword argument '{argument}'" in str(error):
                raise UserError(
                    f"{whose} {name} takes no argument {argument!r}: {_CALL}; add `{argument}: bool` to "
                    "__call__, or wrap the module in one that has it"
                ) from error
        raise


def check_logits(logits: Any, module: nn.Module, whose: str) -> None:
    """Raise unless a forward pass returned a single array (B, K).

    Raises:
      UserError: naming what to return.
    """
    if not hasattr(logits, "shape") or len(logits.shape) != 2:
        got = f"shape {tuple(logits.shape)}" if hasattr(logits, "shape") else type(logits).__name__
        raise UserError(
            f"{whose} {type(module).__name__} returned {got}: {_CALL}; return the logits alone, and "
            "expose features with at_jax.intermediates.tap"
        )


def uses_batch_statistics(module: nn.Module, whose: str) -> UserError:
    """Make the error for a module that normalizes by the batch with ``train=False``."""
    return UserError(
        f"{whose} {type(module).__name__} changes its batch statistics with train=False, so its "
        "predictions would depend on the other images of a batch: pass use_running_average=not train to "
        "its batch normalization"
    )


def check_function(name: str, function: Any, parameters: Sequence[str], example: str) -> None:
    """Raise unless an argument is a function with certain positional parameters.

    Args:
      name: of the argument.
      function: its value.
      parameters: names, for the message.
      example: of a value, for the message.

    Raises:
      UserError: naming the argument.
    """
    if not callable(function):
        raise UserError(f"{name} must be a function, got {type(function).__name__}: pass {example}")
    try:
        inspect.signature(function).bind(*parameters)
    except TypeError as error:
        raise UserError(
            f"{name} must be callable as {name}({', '.join(parameters)}), got a function that is not "
            f"({error}): change its signature"
        ) from error
    except ValueError:
        pass  # without a signature, such as some built-in functions


def is_module_class(value: Any) -> bool:
    """Whether a value is a class of linen modules."""
    return isinstance(value, type) and issubclass(value, nn.Module)
