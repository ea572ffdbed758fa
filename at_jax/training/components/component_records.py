"""Records of user-defined modules, terms and functions in config.json, and building modules from them."""

import dataclasses
import functools
import inspect
import json
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from at_jax.errors import UserError, listed
from at_jax.training.components import imports, modules

__all__ = ["from_record", "named_module", "qualified_name", "record", "text_of"]

_DTYPE = "__dtype__"  # key of a dtype in JSON


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
            stored = json.loads(json.dumps(value))
            is_exact = _as_tuples(stored) == _as_tuples(value)
        except (TypeError, ValueError):
            is_exact = False
        if is_exact:
            fields[field.name] = stored
        elif value is field.default:
            continue
        elif (dtype := _dtype_name(value)) is not None:
            fields[field.name] = {_DTYPE: dtype}
        else:
            unrecorded.append(field.name)
    return {"class": qualified_name(instance), "fields": fields, "unrecorded": unrecorded}


def _dtype_name(value: Any) -> str | None:
    """The name of a dtype or of its scalar type, such as ``jnp.bfloat16``; None for other values."""
    is_scalar_type = isinstance(value, type) and (
        issubclass(value, np.generic) or isinstance(getattr(value, "dtype", None), np.dtype)
    )
    return jnp.dtype(value).name if is_scalar_type or isinstance(value, np.dtype) else None


def _as_tuples(value: Any) -> Any:
    """Lists as tuples, at any depth: JSON does not distinguish them, and fields of modules are hashed."""
    if isinstance(value, dict) and value.keys() == {_DTYPE}:
        return jnp.dtype(value[_DTYPE])
    if isinstance(value, list | tuple):
        return tuple(map(_as_tuples, value))
    if isinstance(value, dict):
        return {key: _as_tuples(each) for key, each in value.items()}
    return value


def qualified_name(value: Any) -> str:
    """``package:name`` of a class, a function, or the class of an instance."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}:{named.__qualname__}"


def named_module(named: str, fields: Mapping[str, Any], key: str) -> nn.Module:
    """Import a network that a config names, and build it.

    Args:
      named: ``package:name`` of a class, a function that returns an instance, or an instance.
      fields: arguments of a class or a function, if it takes them.
      key: of the config, for messages.

    Raises:
      UserError: if it cannot be imported or built.
    """
    flag = f"--config.{key}="
    target = imports.by_name(named, flag)
    return target if isinstance(target, nn.Module) else _called(target, f"{flag}{named}", fields)


def _called(target: Any, named: str, fields: Mapping[str, Any]) -> nn.Module:
    """Call a class or a factory with the fields that it takes."""
    passed: dict[str, Any] = {}
    try:
        parameters = inspect.signature(target).parameters
        passed = {name: value for name, value in fields.items() if name in parameters}
        made = target(**passed)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{named} must be callable with {listed(passed, 'no arguments')}, got {type(error).__name__} "
            f"({error}): name a function that returns an instance"
        ) from error
    modules.check_is_module(made, named)
    return made


def text_of(value: Any) -> str:
    """Describe a function, or an instance that is called like one, with its arguments or fields.

    The text is the same in every process.

    >>> text_of(functools.partial(json.dumps, indent=2))
    'json:dumps(indent=2)'
    """
    if isinstance(value, functools.partial):
        passed = [*map(_argument, value.args)]
        passed += [f"{key}={_argument(each)}" for key, each in value.keywords.items()]
        return f"{text_of(value.func)}({', '.join(passed)})"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (field.name for field in dataclasses.fields(value))
        passed = [f"{name}={_argument(getattr(value, name))}" for name in fields]
        return f"{qualified_name(value)}({', '.join(passed)})"
    return qualified_name(value)


def _argument(value: Any) -> str:
    try:
        return json.dumps(value.tolist() if hasattr(value, "tolist") else value)  # arrays
    except (TypeError, ValueError):
        return text_of(value)


def from_record(
    recorded: Mapping[str, Any],
    named: nn.Module | str | None,
    where: Any,
    fields: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build the module of a run that trained a user-defined one.

    Nothing is imported unless the user names it.

    Args:
      recorded: by :func:`record`; may be empty for a run of an older version.
      named: an instance, or ``"package:name"`` of an instance, a class or a factory.
        Several names, separated by commas, are those of several runs: the one of the recorded class is
        taken.
      where: workdir of the run, for messages.
      fields: arguments of a factory, if it takes them; see :func:`named_module`.

    Returns:
      The module.

    Raises:
      UserError: naming what to pass.
    """
    if named is not None and not isinstance(named, str):
        modules.check_is_module(named, "module=")
        return named
    # A class in the script that was run is known by the script's name, which is not recorded.
    known = recorded.get("class", "package:name").replace("__main__:", "package:")
    if not named:
        # A wrapped NNX module is known by the wrapper: a function must build it.
        name = "package:function" if known.endswith(":ToLinen") else known
        raise UserError(
            f"the run in {where} trained a user-defined module ({known}): pass it again with "
            f"--module={name}, or module=... in Python"
        )
    trained = f"the run in {where} trained {known}"
    names = [name.strip() for name in named.split(",")]
    made = {name: _made(name, fields or {}) for name in names if not imports.is_term(name)}
    if len(made) > 1:
        # Without the package, which is another one where a script is imported.
        wanted = known.partition(":")[2]
        made = {k: v for k, v in made.items() if qualified_name(v).partition(":")[2] == wanted}
    if not made:
        raise UserError(f"{trained}, got --module={named}: name this class as well")
    name, target = next(iter(made.items()))
    if isinstance(target, type):
        return _instance(target, recorded, trained, name)
    return target


def _instance(
    module: type[nn.Module], recorded: Mapping[str, Any], trained: str, name: str
) -> nn.Module:
    """Build a module of a class with the recorded fields."""
    if unrecorded := recorded.get("unrecorded"):
        raise UserError(
            f"{trained} with fields that were not recorded ({listed(unrecorded)}): name a function or an "
            "instance that sets them, --module=package:name"
        )
    try:
        return module(**_as_tuples(recorded.get("fields", {})))
    except TypeError as error:
        raise UserError(
            f"{trained}, got --module={name}, a class with other fields ({error}): name the class that was "
            "trained, or a function that returns its instance"
        ) from error


def _made(named: str, fields: Mapping[str, Any]) -> nn.Module | type[nn.Module]:
    """Import an instance or a class; call a factory."""
    target = imports.by_name(named)
    if modules.is_module_class(target):
        return target
    if callable(target) and not isinstance(target, nn.Module | type):
        return _called(target, f"--module={named}", fields)
    modules.check_is_module(target, f"--module={named}")
    return target
