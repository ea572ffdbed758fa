"""Detection of the network and the names of a PyTorch state dict."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from at_jax.errors import UserError, listed, printable
from at_jax.models.pretrained import namings
from at_jax.models.pretrained.namings import NAMINGS, Family, Naming

__all__ = ["HEAD", "Match", "check_names", "differences", "family", "match", "shapes"]

HEAD = "classifier"  # the name of the last layer of every network with pretrained weights
_MOST_CHANNELS = 64


def family(module: nn.Module, *, writes: bool = False) -> Family:
    """The entry of a network in ``NAMINGS``.

    Args:
      module: the network.
      writes: whether a file is written, not read: for the message.

    Raises:
      UserError: if its files cannot be read or written.
    """
    if (found := NAMINGS.get(type(module))) is None:
        known = ", ".join(each.__name__ for each in NAMINGS)
        done, fix = (
            ("written", "export it with --to-stablehlo")
            if writes
            else ("read", "choose one of these")
        )
        raise UserError(
            f"PyTorch weights can be {done} for {known}, got {type(module).__name__}: {fix}"
        )
    if not hasattr(module, "num_classes"):
        raise UserError(
            f"a network in NAMINGS must have a field num_classes, got {type(module).__name__} without "
            "it: add the field"
        )
    return found


class Match(NamedTuple):
    """The naming that a state dict has.

    Attributes:
      naming: the one with most names of the state dict.
      names: Flax path to name.
      wanted: Flax path to shape.
      classes: of the classifier of the state dict; None without one.
      image_shape: usual for the network, with the channels of the state dict.
    """

    naming: Naming
    names: dict[namings.Path, str | None]
    wanted: dict[namings.Path, jax.ShapeDtypeStruct]
    classes: int | None
    image_shape: tuple[int, int, int]


def match(given: Mapping[str, np.ndarray], module: nn.Module) -> Match:
    """Find the naming of a state dict.

    Args:
      given: names of PyTorch to arrays.
      module: a network of the type of the state dict.

    Raises:
      UserError: if the files of such networks cannot be read.
    """
    known = family(module)
    height, width, channels = known.image_shape
    paths = shapes(module, known.image_shape)
    for path, leaf in paths.items():
        if leaf.ndim not in namings.RANKS:
            raise UserError(
                f"arrays of a network in NAMINGS must have rank 1, 2 or 4, got {'/'.join(path)} of shape "
                f"{leaf.shape}: convert the file in your own code"
            )
    all_names = [{path: naming.name(path) for path in paths} for naming in known.namings]
    found = [sum(name in given for name in names.values()) for names in all_names]
    best = found.index(max(found))
    names = all_names[best]
    stem = given.get(str(names["params", known.stem, "kernel"]))
    if stem is not None and stem.ndim == 4 and 0 < stem.shape[1] <= _MOST_CHANNELS:
        channels = stem.shape[1]
    images = (height, width, channels)
    wanted = paths if images == known.image_shape else shapes(module, images)
    return Match(known.namings[best], names, wanted, _classes(names, given), images)


def shapes(module: nn.Module, images: tuple[int, ...]) -> dict[namings.Path, jax.ShapeDtypeStruct]:
    """Shapes of the variables, without computing an initialization."""
    batch = jax.ShapeDtypeStruct((1, *images), jnp.float32)
    return traverse_util.flatten_dict(dict(jax.eval_shape(module.init, jax.random.key(0), batch)))


def _classes(
    names: Mapping[namings.Path, str | None], given: Mapping[str, np.ndarray]
) -> int | None:
    weight = given.get(str(names["params", HEAD, "kernel"]))
    bias = given.get(str(names["params", HEAD, "bias"]))
    if weight is None or bias is None or np.ndim(weight) != 2 or bias.shape != weight.shape[:1]:
        return None
    return len(weight)


def check_names(
    given: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    module: Any,
    source: str,
    classes: int | None,
) -> None:
    """Raise unless the names and shapes of a state dict are those of a network.

    Args:
      given: names to arrays.
      shapes: names to the shapes of the network.
      module: the network.
      source: name of the state dict, for the message.
      classes: number of classes in the state dict if it differs from that of the network.

    Raises:
      UserError: naming what is missing, unexpected, or of another shape.
    """
    if not (problems := differences(given, shapes)):
        return
    fixes = [f"set the number of classes to {classes}"] if classes is not None else []
    if prefix := _prefix(given, shapes):
        fixes.append(f"remove {printable(prefix)!r} at the start of its names")
    elif given.keys() != shapes.keys() or not fixes:
        fixes.append("give the weights of this network, or choose the network of the file")
    title = family(module).title(module)
    raise UserError(
        f"{source} does not fit {title} with {module.num_classes} classes: "
        f"{problems}: {'; '.join(fixes)}"
    )


def differences(
    given: Mapping[Any, Any],
    shapes: Mapping[Any, tuple[int, ...]],
    text: Callable[[Any], str] = str,
) -> str:
    """Describe what is missing, unexpected, or of another shape; empty if nothing is.

    Args:
      given: names to arrays.
      shapes: names to the shapes that are expected.
      text: function from a name to its text.
    """
    groups = {
        "missing": [text(name) for name in shapes if name not in given],
        "unexpected": [printable(text(name)[:100]) for name in given if name not in shapes],
        "with": [
            f"{text(name)} of shape {tuple(np.shape(given[name]))} instead of {shape}"
            for name, shape in shapes.items()
            if name in given and tuple(np.shape(given[name])) != shape
        ],
    }
    return "; ".join(f"{group} {listed(names)}" for group, names in groups.items() if names)


def _prefix(given: Mapping[str, Any], names: Mapping[str, Any]) -> str:
    """The prefix that all names have in a state dict, such as Lightning's "model."; empty without one."""
    first = next(iter(names), "")
    prefixes = [name.removesuffix(first) for name in given if first and name.endswith(first)]
    return next((p for p in prefixes if p and all(p + name in given for name in names)), "")
