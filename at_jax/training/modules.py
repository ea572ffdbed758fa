"""User-defined modules: what the trainer expects of them, their record, and building them from it."""

import contextlib
import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import flax.errors
import flax.linen as nn
from flax import nnx

from at_jax.errors import UserError, listed

__all__ = [
    "check_is_module",
    "check_logits",
    "from_record",
    "qualified_name",
    "record",
    "translated_errors",
]

_CALL = "module.apply(variables, images, train=...) must return logits (B, K)"


def check_is_module(module: Any, whose: str) -> None:
    """Raise unless an argument is an instance of a linen module.

    Raises:
      UserError: saying what to pass.
    """
    if isinstance(module, nn.Module):
        return
    if isinstance(module, type) and issubclass(module, nn.Module):
        fix = f"got the class {module.__name__}: pass an instance, {module.__name__}(...)"
    elif isinstance(module, nnx.Module) or (
        isinstance(module, type) and issubclass(module, nnx.Module)
    ):
        name = module.__name__ if isinstance(module, type) else type(module).__name__
        fix = f"got the NNX module {name}: wrap it, flax.nnx.bridge.to_linen({name}, ...)"
    elif isinstance(module, Mapping):
        fix = "got variables: pass (module, variables), in this order"
    else:
        fix = f"got {type(module).__name__}: pass a flax.linen.Module"
    raise UserError(f"{whose} must be an instance of a linen module, {fix}")


@contextlib.contextmanager
def translated_errors(module: nn.Module, whose: str) -> Iterator[None]:
    """Turn Flax's and Python's errors about a module's call into a UserError.

    Args:
      module: whose call is traced.
      whose: ``"student"`` or ``"teacher"``.
    """
    name = type(module).__name__
    try:
        yield
    except flax.errors.InvalidRngError as error:
        raise UserError(
            f"{whose} {name} draws random numbers with train=False (dropout, say): make it deterministic "
            "there, for example nn.Dropout(rate, deterministic=not train)"
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
      UserError: saying what to return.
    """
    if not hasattr(logits, "shape") or len(logits.shape) != 2:
        got = f"shape {tuple(logits.shape)}" if hasattr(logits, "shape") else type(logits).__name__
        raise UserError(
            f"{whose} {type(module).__name__} returned {got}: {_CALL}; return the logits alone, and "
            "expose features with at_jax.intermediates.tap"
        )


def record(module: nn.Module) -> dict[str, Any]:
    """Describe a module in JSON: its class as ``package:name``, and its fields.

    Args:
      module: an instance.

    Returns:
      ``class``, ``fields``, and ``unrecorded``: names of fields that JSON cannot hold.
    """
    fields, unrecorded = {}, []
    for field in dataclasses.fields(module):
        if field.name in ("parent", "name"):
            continue
        value = getattr(module, field.name)
        try:
            fields[field.name] = json.loads(json.dumps(value))
        except (TypeError, ValueError):
            if value is not field.default and value != field.default:
                unrecorded.append(field.name)
    return {"class": qualified_name(module), "fields": fields, "unrecorded": unrecorded}


def qualified_name(value: Any) -> str:
    """``package:name`` of a class, a function, or the class of an instance."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}:{named.__qualname__}"


def from_record(
    recorded: Mapping[str, Any], named: nn.Module | str | None, where: Any
) -> nn.Module:
    """Build the module of a run that trained a user-defined one.

    Nothing is imported unless the user names it.

    Args:
      recorded: by :func:`record`; may be empty for a run of an older version.
      named: an instance, or ``"package:name"`` of an instance, a class or a factory without arguments.
      where: workdir of the run, for messages.

    Returns:
      The module.

    Raises:
      UserError: saying what to pass.
    """
    if isinstance(named, nn.Module):
        return named
    known = recorded.get("class", "package:name")
    if not named:
        raise UserError(
            f"the run in {where} trained a user-defined module ({known}): pass it again with "
            f"--module={known}, or module=... in Python"
        )
    target = _import(named)
    if isinstance(target, nn.Module):
        return target
    if isinstance(target, type) and issubclass(target, nn.Module):
        if unrecorded := recorded.get("unrecorded"):
            raise UserError(
                f"the run in {where} trained {known} with fields that were not recorded "
                f"({listed(unrecorded)}): name a function or an instance that sets them, "
                "--module=package:name"
            )
        fields = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in recorded.get("fields", {}).items()
        }
        return target(**fields)
    made = target() if callable(target) else target
    check_is_module(made, f"--module={named}")
    return made


def _import(named: str) -> Any:
    package, _, name = named.partition(":")
    if not (package and name):
        raise UserError(
            f"--module must be package:name, got {named!r}: for example --module=my_networks:MyNet"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(package), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(
            f"--module={named} cannot be imported ({error}): name a package on the import path or in the "
            "current directory"
        ) from error
