"""Transfer points: activations that a module exposes with :func:`tap`, read by :func:`collect`.

A module calls :func:`tap` on an activation. :func:`collect` reads the activations after
``model.apply(variables, images, mutable=["intermediates"])``. Flax's ``sow`` does nothing unless the
collection is mutable: a tap otherwise costs nothing. The output of any submodule can be captured by path.
"""

import contextlib
import difflib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from flax import traverse_util
from flax.core import meta

from at_jax.errors import UserError, listed

__all__ = ["COLLECTION", "check_points", "collect", "forward", "initialize", "tap"]

COLLECTION = "intermediates"
_CALL = "/__call__"  # Flax's suffix for the captured output of a submodule


def tap(module: nn.Module, name: str, value: jax.Array) -> None:
    """Expose an activation of ``module`` under ``name``.

    Args:
      module: the linen module whose ``__call__`` computes the activation.
      name: name of the transfer point, such as ``"group1"``; unique in the module, and not the name of one
        of its submodules. Without ``/``, which separates submodules in the names of :func:`collect`.
      value: the activation, ``(B, H, W, C)``.

    Raises:
      UserError: if the name is empty, contains ``/``, or is that of a submodule. Flax raises NameInUseError
        if the submodule is made after the tap.

    >>> import flax.linen as nn, jax.numpy as jnp
    >>> class Net(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x):
    ...         tap(self, "input", x)
    ...         return x
    >>> _, mutated = Net().apply({}, jnp.ones((1, 2, 2, 3)), mutable=["intermediates"])
    >>> collect(mutated)["input"].shape
    (1, 2, 2, 3)
    """
    if not isinstance(name, str) or not name or "/" in name:
        raise UserError(
            "tap: name must be a string without '/', which separates submodules in the names of transfer "
            f"points, got {name!r}: use {str(name).replace('/', '_') or 'group1'!r}"
        )
    is_taken = _is_submodule(module, name)
    try:
        if not is_taken:
            module.sow(COLLECTION, name, value)
    except ValueError as error:  # Flax's, if the submodule has stored no activations
        if not (is_taken := "Duplicate use of scope name" in str(error)):
            raise
    if is_taken:
        raise UserError(f"tap: name must not be that of a submodule, got {name!r}: rename the tap")


def _is_submodule(module: nn.Module, name: str) -> bool:
    """Whether activations of a submodule of this name are stored; NNX modules store none."""
    stores = isinstance(module, nn.Module) and module.is_mutable_collection(COLLECTION)
    return stores and isinstance(module.get_variable(COLLECTION, name), Mapping)


def collect(mutated: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Read the tapped activations of one forward pass.

    Args:
      mutated: second result of ``model.apply(..., mutable=["intermediates"])``; other mutable
        collections in it are ignored.

    Returns:
      Name to activation ``(B, H, W, C)``, in the order of the network; in the order of the names if
      ``mutated`` is the result of a jitted function, because jit sorts the keys of dicts. Names of taps
      in submodules include the path: ``"encoder/group1"``.

    Raises:
      UserError: if nothing was tapped, a name was tapped more than once, or the argument is not the second
        result of ``apply``.

    >>> collect({})
    Traceback (most recent call last):
    at_jax.errors.UserError: no activation was tapped: pass mutable=["intermediates"] to apply, and call \
at_jax.intermediates.tap in the module
    """
    if not isinstance(mutated, Mapping):
        raise UserError(
            f"collect: mutated must be a dict of collections, got {type(mutated).__name__}: pass the "
            "second result of logits, mutated = model.apply(..., mutable=['intermediates'])"
        )
    if not (taps := _collect(mutated)):
        raise UserError(
            'no activation was tapped: pass mutable=["intermediates"] to apply, and call '
            "at_jax.intermediates.tap in the module"
        )
    return taps


def _collect(mutated: Mapping[str, Any], captured: Iterable[str] = ()) -> dict[str, jax.Array]:
    """Like :func:`collect`, but possibly empty; paths of captured submodules have no suffix."""
    flat = traverse_util.flatten_dict(dict(mutated.get(COLLECTION, {})), sep="/")
    captured = {path + _CALL for path in captured}
    taps = {}
    for name, boxed in flat.items():
        # One by one: an operation on the whole tree would sort its keys.
        values = meta.unbox(boxed)
        # A sown value is a tuple, one item a call; NNX modules behind nnx.bridge sow the value itself.
        values = values if isinstance(values, tuple) else (values,)
        if len(values) != 1:
            point = name.removesuffix(_CALL)
            raise UserError(
                f"transfer point {point!r} must be computed once in a forward pass, got {len(values)} "
                "calls: give every tap of a module its own name; if a submodule is called several times, "
                "tap its outputs in the module that calls it"
            )
        taps[name.removesuffix(_CALL) if name in captured else name] = values[0]
    return taps


def forward(
    module: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    *,
    paths: Sequence[str] = (),
    mutable: Sequence[str] | None = None,
    check_paths: bool = True,
    **kwargs: Any,
) -> tuple[jax.Array, dict[str, jax.Array], dict[str, Any]]:
    """Apply a network and read its transfer points.

    Args:
      module: the network.
      variables: its variables.
      images: ``(B, H, W, C)``, normalized.
      paths: submodules, such as ``"encoder/layer3"``, whose output is captured in addition to the taps.
      mutable: other collections that the module may change; None for all but ``params``.
      check_paths: raise for a path that is neither a submodule nor a tap; otherwise it has no result.
      **kwargs: for ``module.apply``: ``train``, ``rngs``, ...

    Returns:
      Logits ``(B, K)``, transfer point to activation ``(B, H, W, C)`` in order, and changed collections.

    Raises:
      UserError: if a point is computed more than once, or not at all, or for a module that is not linen.
    """
    if not isinstance(module, nn.Module):
        raise UserError(
            f"forward: module must be a linen module, got {type(module).__name__}: return the activations "
            "of an NNX module from its __call__, or wrap it with flax.nnx.bridge.to_linen"
        )
    if isinstance(paths, str):
        raise UserError(f"forward: paths must be a sequence, got {paths!r}: pass [{paths!r}]")
    wanted = frozenset(paths)
    called: dict[str, None] = {}

    def is_wanted(submodule: nn.Module, method: str) -> bool:
        path = "/".join(submodule.path) if method == "__call__" else ""
        called[path] = None
        return path in wanted

    # Variables may hold the activations of an earlier call.
    variables = {name: tree for name, tree in variables.items() if name != COLLECTION}
    if mutable is None:
        mutable = [name for name in variables if name != "params"]
    with _nnx_may_sow():
        logits, mutated = module.apply(
            variables,
            images,
            mutable=[*mutable, COLLECTION],
            capture_intermediates=is_wanted if wanted else False,
            **kwargs,
        )
    mutated = dict(mutated)
    taps = _collect(mutated, wanted)
    if check_paths:
        _check_paths(module, [path for path in paths if path not in taps], [*called, *taps])
    mutated.pop(COLLECTION, None)
    return logits, taps, meta.unbox(mutated)


def _check_paths(module: nn.Module, missing: Sequence[str], known: Sequence[str]) -> None:
    if missing:
        known = [name for name in dict.fromkeys(known) if name]  # the module itself has no path
        if missing[0] in known:
            raise UserError(
                f"paths: the output of {missing[0]!r} is not stored: add {COLLECTION!r} to the "
                "variable_axes of the nn.scan or nn.vmap around it"
            )
        close = difflib.get_close_matches(missing[0], known, n=1)
        raise UserError(
            f"paths must be submodules or taps of {type(module).__name__}, which has {listed(known)}, got "
            f"{listed(map(repr, missing))}: "
            + (f"did you mean {close[0]!r}?" if close else "choose from these")
        )


def initialize(module: nn.Module, key: jax.Array, images: jax.Array) -> dict[str, Any]:
    """Initialize the variables of a network, without sown activations.

    Args:
      module: the network.
      key: PRNG key.
      images: ``(B, H, W, C)``.

    Returns:
      Collection name to variables.
    """
    with _nnx_may_sow():
        # The dropout of an NNX module asks for its stream even if it is deterministic.
        rngs = {"params": key, "dropout": key}
        variables = meta.unbox(dict(module.init(rngs, images, train=False)))
    variables.pop(COLLECTION, None)
    return variables


@contextlib.contextmanager
def _nnx_may_sow() -> Iterator[None]:
    """Silence NNX's advice to sow within nnx.capture: nnx.bridge collects the values itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using 'Module.sow", category=DeprecationWarning)
        yield


def check_points(wanted: Iterable[str], found: Iterable[str], whose: str) -> None:
    """Raise unless every wanted transfer point was found.

    Args:
      wanted: names that a loss requires.
      found: names that the network exposes.
      whose: ``"student"`` or ``"teacher"``, for the message.

    Raises:
      UserError: naming the missing points and the known ones.
    """
    found = tuple(found)
    if missing := [name for name in wanted if name not in found]:
        raise UserError(
            f"{whose} has no transfer point {listed(map(repr, missing))}; it taps "
            f"{listed(map(repr, found), 'nothing')}: choose from these, name a submodule by its "
            "path, or tap the activation in the module with at_jax.intermediates.tap"
        )
