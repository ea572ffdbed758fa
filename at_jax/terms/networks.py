"""Forward passes of student and teacher, whose errors name the network and the argument to change."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import flax.errors
import flax.linen as nn
import jax
from flax import nnx, traverse_util

from at_jax.errors import UserError, listed, one_line, traceable
from at_jax.terms.view import View, view_network

__all__ = ["check_complete", "check_is_module", "check_teacher", "explained", "view"]

_CALL = "module.apply(variables, images, train=...) must return logits (B, K)"
_WHOLE = "pass all variables of this network, {'params': ..., 'batch_stats': ...}"
# The trainer passes all of them: there, the module creates others in training than in evaluation.
_PARTS = (
    "create the same ones with train=True and train=False, and pass all to an objective, "
    "params={'student': variables['params']} and collections={'batch_stats': variables['batch_stats']}"
)
# Flax raises these for variables of another network, or without a collection.
_MISSING = (
    flax.errors.ApplyScopeInvalidVariablesStructureError,
    flax.errors.ApplyScopeInvalidVariablesTypeError,
    flax.errors.ScopeCollectionNotFound,
    flax.errors.ScopeParamNotFoundError,
    flax.errors.ScopeVariableNotFoundError,
)


def check_is_module(module: Any, whose: str) -> None:
    """Raise unless a network is an instance of a linen module.

    Args:
      module: of an objective.
      whose: ``"student"`` or ``"teacher"``, for the message.
    """
    if isinstance(module, nn.Module):
        return
    kind = module if isinstance(module, type) else type(module)
    name = kind.__name__
    if issubclass(kind, nn.Module):
        fix = f"got the class {name}: pass an instance, {name}(...)"
    elif issubclass(kind, nnx.Module):
        fix = f"got the NNX module {name}: wrap it, flax.nnx.bridge.to_linen({name}, ...)"
    elif issubclass(kind, Mapping | tuple | list):
        fix = f"got {name}: pass the module alone, and its variables in the call"
    else:
        fix = f"got {name}: pass a flax.linen.Module"
    raise UserError(f"{whose} must be an instance of a linen module, {fix}")


def check_teacher(module: nn.Module, variables: Any) -> None:
    """Raise unless there are variables of the teacher."""
    if not isinstance(variables, Mapping):
        raise UserError(
            f"teacher must be the variables of {type(module).__name__}, got {type(variables).__name__}: "
            "pass {'params': ..., ...}, or the result of view_teacher"
        )


def check_complete(module: nn.Module, variables: Any, mutated: Mapping[str, Any]) -> None:
    """Raise if the teacher's pass initialized variables that it was not given.

    Args:
      module: the teacher.
      variables: of the teacher.
      mutated: its collections after the pass.
    """
    given, made = (traverse_util.flatten_dict(dict(tree)) for tree in (variables, mutated))
    if missing := sorted("/".join(path) for path in made.keys() - given.keys()):
        raise UserError(
            f"teacher {type(module).__name__} must have all its variables, got none for {listed(missing)}: "
            "pass them all"
        )


def view(
    whose: str,
    module: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    labels: jax.Array,
    *,
    train: bool,
    **options: Any,
) -> View:
    """Apply a network; see :func:`at_jax.terms.view.view_network`.

    Args:
      whose: ``"student"`` or ``"teacher"``, for messages.
      module: the network.
      variables: its variables.
      images: normalized, ``(B, H, W, C)``.
      labels: ``(B,)``, or soft labels ``(B, K)``.
      train: the mode.
      **options: of ``view_network``, and arguments for the module.

    Raises:
      UserError: as :func:`explained` and ``view_network``.
    """
    with explained(whose, module, variables, images, train=train, keys=options.get("keys")):
        return view_network(module, variables, images, labels, train=train, **options)


@contextlib.contextmanager
def explained(
    whose: str,
    module: nn.Module,
    variables: Mapping[str, Any],
    images: Any,
    *,
    train: bool = False,
    keys: Any = None,
) -> Iterator[None]:
    """Turn errors of JAX, Flax and Python about the call of a network into a UserError.

    Args:
      whose: ``"student"`` or ``"teacher"``.
      module: the network.
      variables: its variables.
      images: normalized, ``(B, H, W, C)``.
      train: the mode; only an objective's own pass of the student is in training mode.
      keys: PRNG keys; None without random numbers.
    """
    name = f"{whose} {type(module).__name__}"
    try:
        with traceable(name):
            yield
    except flax.errors.ScopeParamShapeError as error:
        raise UserError(
            f"{name} must have parameters that fit its images, got images of shape {images.shape} and: "
            f"{_reason(error)}: pass images (B, H, W, C) with the channels of its training and the "
            "parameters of this network, whose layers have the same shapes with train=True and train=False"
        ) from error
    except _MISSING as error:
        raise UserError(
            f"{name} must have all its variables, got the collections {listed(variables)} and: "
            f"{_reason(error)}: {_PARTS if train else _WHOLE}"
        ) from error
    except flax.errors.InvalidRngError as error:
        if keys is not None:
            raise
        fix = "make it deterministic there, for example nn.Dropout(rate, deterministic=not train)"
        if train:
            fix = f"pass keys=jax.random.split(key, {images.shape[0]}), other keys in each step"
        raise UserError(
            f"{name} draws random numbers with train={train} (for example, dropout), got no keys: {fix}"
        ) from error
    except TypeError as error:
        if argument := _refused(error, module):
            raise UserError(
                f"{name} takes no argument {argument!r}: {_CALL}; add it to __call__, or wrap the module "
                "in one that has it"
            ) from error
        raise


def _reason(error: Exception) -> str:
    """Flax's message, without the address of its documentation."""
    return one_line(str(error).partition(" (http")[0], most=300).rstrip(".")


def _refused(error: TypeError, module: nn.Module) -> str:
    """Name of the keyword argument that the module does not take; empty for another error.

    A submodule that refuses an argument is a mistake in the module's code, whose line Python shows, unless
    the module passes all its arguments on.
    """
    _, found, rest = str(error).partition("unexpected keyword argument '")
    argument = rest.partition("'")[0]
    parameters = inspect.signature(type(module).__call__).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    is_own = argument in ("train", "deterministic") if takes_any else argument not in parameters
    return argument if found and is_own else ""
