"""User-defined modules: what the trainer expects of them, their record, and building them from it."""

import contextlib
import dataclasses
import importlib
import inspect
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
    "check_signature",
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
    if _is_module_class(module):
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
            f"{whose} {name} draws random numbers with train=False (for example, dropout): make it "
            "deterministic "
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


def record(instance: Any) -> dict[str, Any]:
    """Describe a module or a term in JSON: its class as ``package:name``, and its fields.

    Args:
      instance: of a dataclass.

    Returns:
      ``class``, ``fields``, and ``unrecorded``: names of fields that JSON cannot hold.
    """
    fields, unrecorded = {}, []
    for field in dataclasses.fields(instance):
        if field.name in ("parent", "name"):
            continue
        value = getattr(instance, field.name)
        try:
            fields[field.name] = json.loads(json.dumps(value))
        except (TypeError, ValueError):
            if value is not field.default:
                unrecorded.append(field.name)
    return {"class": qualified_name(instance), "fields": fields, "unrecorded": unrecorded}


def check_signature(name: str, function: Any) -> None:
    """Raise UserError unless an optimizer takes a rate, and an augmentation a key and an image."""
    expected = {"optimizer": ("rate",), "augment": ("key", "image")}[name]
    try:
        inspect.signature(function).bind(*expected)
    except TypeError as error:
        raise UserError(
            f"{name} must take {len(expected)} arguments, {name}({', '.join(expected)}), got a function "
            f"that does not ({error}): change its signature"
        ) from error
    except ValueError:  # without a signature, such as some built-in functions
        return


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
        Several names, separated by commas, are those of several runs: the one of the recorded class is
        taken.
      where: workdir of the run, for messages.

    Returns:
      The module.

    Raises:
      UserError: saying what to pass.
    """
    if isinstance(named, nn.Module):
        return named
    # A class in the script that was run is known by the script's name, which is not recorded.
    known = recorded.get("class", "package:name").replace("__main__:", "package:")
    if not named:
        raise UserError(
            f"the run in {where} trained a user-defined module ({known}): pass it again with "
            f"--module={known}, or module=... in Python"
        )
    made = {each: _made(each.strip()) for each in named.split(",")}
    if len(made) > 1:
        wanted = known.partition(":")[2]
        made = {each: one for each, one in made.items() if _class(one).__qualname__ == wanted}
    if not made:
        raise UserError(
            f"the run in {where} trained {known}, got --module={named}: name this class as well"
        )
    name, target = next(iter(made.items()))
    if not isinstance(target, type):
        return target
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
    try:
        return target(**fields)
    except TypeError as error:
        raise UserError(
            f"the run in {where} trained {known}, got --module={name}, a class with other fields "
            f"({error}): name the class that was trained, or a function that returns its instance"
        ) from error


def _made(named: str) -> nn.Module | type[nn.Module]:
    """Import an instance or a class; call a factory."""
    target = _import(named)
    if _is_module_class(target):
        return target
    if callable(target) and not isinstance(target, nn.Module | type):
        try:
            inspect.signature(target).bind()
        except TypeError as error:
            raise UserError(
                f"--module={named} must be a function without arguments, got one with a {error}: name a "
                "function, an instance or a class"
            ) from error
        target = target()
    check_is_module(target, f"--module={named}")
    return target


def _class(module: nn.Module | type[nn.Module]) -> type[nn.Module]:
    return module if isinstance(module, type) else type(module)


def _import(named: str) -> Any:
    package, _, name = named.partition(":")
    if not (package and name) or package.startswith("."):
        raise UserError(
            f"--module must be package:name, got {named!r}: for example --module=my_networks:MyNet"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        imported = importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"--module={named} cannot be imported ({error}): name a package on the import path or in the "
            "current directory"
        ) from error
    if not hasattr(imported, name):
        known = [key for key, value in vars(imported).items() if _is_module_class(value)]
        raise UserError(
            f"--module={named}: {package} has no {name}, its modules are {listed(known)}: name one of "
            "them, or an instance or a function at the top level of the package"
        )
    return getattr(imported, name)


def _is_module_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)
