"""Frozen modules of a network: neither their parameters nor their statistics change during training.

A name selects the module of that path and everything in it, and modules whose path continues with ``_``:
``"stage1"`` selects ``stage1_block0`` and ``stage1_block1``, but not ``stage10``.
"""

import contextlib
import difflib
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from flax import traverse_util
from flax.nnx.bridge import ToLinen

from at_jax.errors import UserError

__all__ = ["check", "count", "in_evaluation_mode", "is_frozen", "restored", "stopped"]

# Blocks of one stage are listed once: stage1 for stage1_block0 and stage1_block1.
_BLOCK = re.compile(r"_block\d+$")


def is_frozen(path: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a module or a variable is in ``names``, or inside a module in ``names``.

    Args:
      path: of the module or the variable, without its collection.
      names: of frozen modules.

    Raises:
      UserError: if ``names`` is a string.

    >>> [is_frozen(path, ["conv1", "stage1"]) for path in (("stage1_block0", "bn1"), ("conv10",))]
    [True, False]
    """
    if isinstance(names, str):  # its characters would be names
        raise UserError(
            f"frozen modules must be a sequence of names, got {names!r}: pass ({names!r},)"
        )
    joined = "/".join(path)
    return any(joined == name or joined.startswith((f"{name}/", f"{name}_")) for name in names)


def check(names: Sequence[str], params: Mapping[str, Any]) -> None:
    """Raise unless every name is that of a module and some parameters remain trainable.

    Args:
      names: of frozen modules.
      params: of the network, or their shapes.

    Raises:
      UserError: with the nearest name, and all names.
    """
    paths = list(traverse_util.flatten_dict(params))
    modules = list(dict.fromkeys(_BLOCK.sub("", path[0]) for path in paths))
    for name in names:
        if not any(is_frozen(path, [name]) for path in paths):
            known = [*modules, *params]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UserError(
                f"the student has no module {name!r} to freeze, its modules are {', '.join(modules)}: "
                f"choose from these{hint}"
            )
    if paths and all(is_frozen(path, names) for path in paths):
        raise UserError(
            f"freezing must leave parameters to train, got {tuple(names)!r}, which are all modules: remove "
            "some of them"
        )


def count(params: Any, names: Sequence[str]) -> int:
    """Number of parameters in frozen modules.

    Args:
      params: of the network, or their shapes.
      names: of frozen modules.
    """
    flat = traverse_util.flatten_dict(params)
    return sum(leaf.size for path, leaf in flat.items() if is_frozen(path, names))


def in_evaluation_mode(names: Sequence[str]) -> contextlib.AbstractContextManager[Any]:
    """Call frozen modules in evaluation mode within a context.

    Sets ``train=False``, ``deterministic=True`` and ``use_running_average=True``, where a module has the
    argument. This disables dropout, and batch normalization uses its running statistics and does not update
    them.

    Args:
      names: of frozen modules.

    Raises:
      UserError: in the context, if a frozen module is one of NNX or in one.
    """
    if not names:
        return contextlib.nullcontext()

    def call_frozen(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if isinstance(module, ToLinen):
            _check_nnx(module, names)
        if context.method_name != "__call__" or not is_frozen(module.path, names):
            return call(*args, **kwargs)
        signature = inspect.signature(type(module).__call__)
        given = signature.bind_partial(module, *args, **kwargs)
        if "train" in signature.parameters:
            given.arguments["train"] = False
        for flag in ("deterministic", "use_running_average"):
            if flag not in signature.parameters:
                continue
            if getattr(module, flag, None) is None:
                given.arguments[flag] = True
            else:
                # Flax raises if both are set. The instance exists for this call only.
                object.__setattr__(module, flag, True)
        return call(*given.args[1:], **given.kwargs)

    return nn.intercept_methods(call_frozen)


def _check_nnx(module: nn.Module, names: Sequence[str]) -> None:
    """Raise if NNX modules are frozen: calls of their submodules are not seen here."""
    path = "/".join(module.path)
    inside = [name for name in names if not path or name.startswith(f"{path}/")]
    if inside or is_frozen(module.path, names):
        raise UserError(
            f"frozen modules must be linen modules, got {tuple(names)!r} of a network in NNX, whose "
            "submodules cannot be switched to evaluation mode: freeze none, and call "
            "jax.lax.stop_gradient on their output in the network"
        )


def stopped(params: Any, names: Sequence[str]) -> Any:
    """Stop the gradients of frozen parameters, so they are not computed.

    Args:
      params: of the network.
      names: of frozen modules.
    """
    if not names:
        return params

    def stop(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        return jax.lax.stop_gradient(leaf) if is_frozen(path, names) else leaf

    return traverse_util.path_aware_map(stop, params)


def restored(
    updated: Mapping[str, Any], before: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    """Collections after a forward pass, with those of frozen modules as they were before it.

    Args:
      updated: collection name to variables, those that the pass has changed.
      before: all collections before the pass.
      names: of frozen modules.

    >>> restored({"batch_stats": {"bn1": 2.0, "bn2": 2.0}}, {"batch_stats": {"bn1": 1.0}}, ["bn1"])
    {'batch_stats': {'bn1': 1.0, 'bn2': 2.0}}
    """
    merged = dict(before) | dict(updated)
    if not names:
        return merged
    # An empty collection is kept: a scan needs the same structure before and after.
    old, flat = (
        traverse_util.flatten_dict(tree, keep_empty_nodes=True) for tree in (dict(before), merged)
    )
    kept = {path: old[path] for path in flat if is_frozen(path[1:], names) and path in old}
    return traverse_util.unflatten_dict(flat | kept)
