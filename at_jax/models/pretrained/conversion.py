"""Conversion between PyTorch state dicts and Flax variables."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from at_jax.errors import UserError, listed, printable
from at_jax.models.pretrained import files, matching, namings
from at_jax.models.pretrained.matching import HEAD, family

__all__ = ["Loaded", "convert", "load", "state_dict"]


class Loaded(NamedTuple):
    """Weights of a file.

    Attributes:
      variables: ``{"params": ..., "batch_stats": ...}`` for ``module.apply``, float32.
      new_head: True if the classifier in the file has a different number of classes and a new one was
        initialized.
      classes: number of classes in the file.
    """

    variables: dict[str, Any]
    new_head: bool
    classes: int


def load(
    path: str | os.PathLike[str], module: nn.Module, *, key: jax.Array | None = None
) -> Loaded:
    """Read the weights of a network from a PyTorch file.

    Args:
      path: a ``.safetensors``, ``.pth`` or ``.pt`` file; see :func:`at_jax.models.pretrained.read`.
      module: the network, a type of ``NAMINGS``.
      key: initializes the classifier if the number of classes in the file differs from
        ``module.num_classes``. Without a key this is an error.

    Returns:
      The variables, and whether the classifier is new.

    Raises:
      UserError: if the file cannot be read, does not fit the network, or has values that a trained network
        cannot have.
    """
    family(module)
    return convert(files.read(path), module, key=key, source=printable(os.fspath(path)))


def convert(
    state_dict: Mapping[str, np.ndarray],
    module: nn.Module,
    *,
    key: jax.Array | None = None,
    source: str = "the state dict",
) -> Loaded:
    """Convert a PyTorch state dict to the variables of a network.

    Convolutions are transposed from ``(O, I, H, W)`` to ``(H, W, I, O)``, linear layers from ``(K, C)`` to
    ``(C, K)``. Running statistics become ``batch_stats``. ``num_batches_tracked`` is dropped.

    Args:
      state_dict: PyTorch's names to arrays, in PyTorch's shapes.
      module: the network, a type of ``NAMINGS``.
      key: as for :func:`load`.
      source: name of the state dict, for messages.

    Returns:
      The variables, and whether the classifier is new.

    Raises:
      UserError: naming missing and unexpected arrays, wrong shapes, and arrays that are not floating
        point, are not finite in float32, or are negative variances.

    >>> from at_jax.models import ResNet
    >>> convert({}, ResNet(18, num_classes=10))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    at_jax.errors.UserError: the state dict does not fit ResNet-18 with 10 classes: missing bn1... \
and 97 more: give the weights of this network, or choose the network of the file
    """
    _check_arguments(state_dict, key)
    given = {k: v for k, v in state_dict.items() if not k.endswith(".num_batches_tracked")}
    matched = matching.match(given, module)
    names, wanted, found = matched.names, matched.wanted, matched.classes
    has_other = found is not None and found != module.num_classes
    head = {}
    if has_other and key is not None:
        head = _initialized_head(module, matched.image_shape, key)
    given = {k: v for k, v in given.items() if k not in {names[path] for path in head}}
    read = {path: leaf for path, leaf in wanted.items() if path not in head}
    shapes = {n: namings.torch_shape(read[p].shape) for p in read if (n := names[p]) is not None}
    matching.check_names(given, shapes, module, source, found if has_other else None)
    variables: dict[namings.Path, jax.Array] = dict(head)
    for path, leaf in read.items():
        if (name := names[path]) is None:
            variables[path] = jnp.full(leaf.shape, matched.naming.absent[path[-1]], jnp.float32)
        else:
            # Parameters are float32: those of bfloat16 and float16 files are promoted.
            array = _float32(name, np.asarray(given[name]), source)
            variables[path] = jnp.asarray(namings.from_torch(array))
    # In the order of the network, whichever part is new.
    ordered = {path: variables[path] for path in wanted}
    return Loaded(
        traverse_util.unflatten_dict(ordered),
        bool(head),
        module.num_classes if found is None else found,
    )


def state_dict(variables: Mapping[str, Any], module: nn.Module) -> dict[str, np.ndarray]:
    """Convert variables to a PyTorch state dict, with the first naming of the network.

    :func:`convert` restores the same float32 arrays, bit for bit; others are converted to float32.
    ``num_batches_tracked`` is omitted: PyTorch sets it to 0.

    Args:
      variables: of the network.
      module: a type of ``NAMINGS``.

    Returns:
      Name to array, contiguous, float32.

    Raises:
      UserError: if the network has no names in PyTorch, or the variables are not those of the network.
    """
    known = family(module, writes=True)
    if "params" not in variables:
        raise UserError(
            f"variables must have the collection 'params', got {listed(variables)}: pass "
            "{'params': ..., 'batch_stats': ...}"
        )
    # Others, such as sown activations, are no weights.
    kept = {key: variables[key] for key in ("params", "batch_stats") if key in variables}
    flat = traverse_util.flatten_dict(kept)
    height, width, channels = known.image_shape
    if np.ndim(stem := flat.get(("params", known.stem, "kernel"))) == 4:
        channels = stem.shape[2]
    wanted = matching.shapes(module, (height, width, channels))
    if problems := matching.differences(
        flat, {path: leaf.shape for path, leaf in wanted.items()}, "/".join
    ):
        raise UserError(
            f"variables do not fit {known.title(module)} with {module.num_classes} classes: "
            f"{problems}: pass the variables of this network"
        )
    name = known.namings[0].name
    arrays = {str(name(path)): np.asarray(leaf, np.float32) for path, leaf in flat.items()}
    return {k: np.ascontiguousarray(namings.to_torch(array)) for k, array in arrays.items()}


def _initialized_head(
    module: nn.Module, images: tuple[int, ...], key: jax.Array
) -> dict[namings.Path, jax.Array]:
    """The classifier of a new network; the rest of its initialization is not computed."""

    def initialize(key: jax.Array) -> Any:
        return module.init(key, jnp.zeros((1, *images), jnp.float32))["params"][HEAD]

    return {("params", HEAD, name): leaf for name, leaf in jax.jit(initialize)(key).items()}


def _float32(name: str, weights: np.ndarray, source: str) -> np.ndarray:
    """Convert an array of a state dict, and check that a trained network can have it."""
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        raise UserError(
            f"{name} of {source} has dtype {weights.dtype}, expected floating-point numbers: pass the "
            "weights of a network that is not quantized"
        )
    with np.errstate(over="ignore"):  # reported below
        result = weights.astype(np.float32)
    wrong = ~np.isfinite(result)
    expected = "finite numbers of float32"
    if not wrong.any() and name.endswith(".running_var"):
        wrong, expected = result < 0, "variances of at least 0"
    if wrong.any():
        raise UserError(
            f"{name} of {source} has {np.count_nonzero(wrong):,} of {wrong.size:,} values such as "
            f"{weights[wrong][0]}, expected {expected}: pass the weights of a successful training"
        )
    return result


def _check_arguments(state_dict: Any, key: Any) -> None:
    is_mapping = isinstance(state_dict, Mapping)
    wrong = [
        name
        for name, array in (state_dict.items() if is_mapping else ())
        if not isinstance(name, str) or not (hasattr(array, "shape") and hasattr(array, "dtype"))
    ]
    if not is_mapping or wrong:
        got = f"the entry {wrong[0]!r}" if wrong else type(state_dict).__name__
        raise UserError(
            f"state_dict must be a dict of names and arrays, got {got}: convert tensors with .numpy()"
        )
    is_key = hasattr(key, "dtype") and (
        jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.dtype == jnp.uint32
    )
    if key is not None and not is_key:
        raise UserError(f"key must be a PRNG key, got {key!r}: pass jax.random.key(0)")
