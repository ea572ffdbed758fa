"""Pretrained weights for :class:`at_jax.models.ResNet` from safetensors files of PyTorch models.

torchvision and timm use the same parameter names for resnet18, 34, 50 and 101. PyTorch is not needed to
read them. Normalize images as in the training of the weights; for torchvision's, mean 0.485, 0.456, 0.406
and standard deviation 0.229, 0.224, 0.225 of pixels in 0..1.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from at_jax.errors import UserError, listed
from at_jax.models import ResNet

__all__ = ["convert", "load_resnet"]

# Flax leaf -> PyTorch leaf; a 1-D "weight" is a BatchNorm scale.
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_MODULES = {
    r"classifier": r"fc",
    r"stage(\d+)_block(\d+)\.shortcut_conv": r"layer\1.\2.downsample.0",
    r"stage(\d+)_block(\d+)\.shortcut_bn": r"layer\1.\2.downsample.1",
    r"stage(\d+)_block(\d+)\.(\w+)": r"layer\1.\2.\3",
}
# Axes of PyTorch in Flax's order, by rank: OIHW -> HWIO, (K, C) -> (C, K).
_AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}


def load_resnet(path: str | os.PathLike[str], module: ResNet) -> dict[str, Any]:
    """Read a torchvision or timm ResNet from a ``.safetensors`` file.

    Args:
      path: file with the state dict of resnet18, 34, 50 or 101.
      module: network of the same depth and ``num_classes`` (1000 for ImageNet).

    Returns:
      ``{"params": ..., "batch_stats": ...}`` for ``module.apply``, float32.

    Raises:
      FileNotFoundError: if the file does not exist.
      ModuleNotFoundError: if the package safetensors is not installed.
      UserError: if the file is damaged or not safetensors, does not fit the module, or has values that no
        trained network has.
    """
    try:
        import safetensors
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "reading pretrained weights needs safetensors: pip install safetensors"
        ) from error
    if os.path.isdir(path):
        raise UserError(
            f"{os.fspath(path)} is a directory, expected a safetensors file: give the file in it"
        )
    try:
        state_dict = safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{os.fspath(path)} is not a complete safetensors file ({error}): download it again, or "
            "save a PyTorch state dict with safetensors.torch.save_file"
        ) from error
    return convert(state_dict, module)


def convert(state_dict: Mapping[str, np.ndarray], module: ResNet) -> dict[str, Any]:
    """Convert a PyTorch ResNet state dict to the variables of a Flax module.

    Convolutions are transposed from ``(O, I, H, W)`` to ``(H, W, I, O)``, the linear layer from ``(K, C)``
    to ``(C, K)``. Running statistics become ``batch_stats``. ``num_batches_tracked`` is dropped.

    Args:
      state_dict: torchvision's names to arrays, in PyTorch's shapes.
      module: network of the same depth and ``num_classes``.

    Returns:
      ``{"params": ..., "batch_stats": ...}`` for ``module.apply``, float32.

    Raises:
      UserError: naming missing and unexpected parameters, shapes that differ, and arrays that are no
        floating-point numbers, are not finite in float32, or are negative variances.

    >>> convert({}, ResNet(18, num_classes=10))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    at_jax.errors.UserError: the state dict does not fit ResNet-18 with 10 classes: missing bn1... \
and 97 more: pass the state dict of resnet18, or build the network with the depth of the state dict
    """
    given = {k: v for k, v in state_dict.items() if not k.endswith(".num_batches_tracked")}
    # Names and shapes of the variables, without computing an initialization.
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    wanted = traverse_util.flatten_dict(jax.eval_shape(module.init, jax.random.key(0), images))
    names = {path: _torch_name(path) for path in wanted}
    shapes = {names[path]: _torch_shape(leaf.shape) for path, leaf in wanted.items()}
    _check(given, shapes, module)
    # Parameters are float32: those of bfloat16 and float16 files are promoted.
    weights = {name: _float32(name, np.asarray(given[name])) for name in shapes}
    return traverse_util.unflatten_dict(
        {
            path: jnp.asarray(np.transpose(weights[names[path]], _AXES[len(leaf.shape)]))
            for path, leaf in wanted.items()
        }
    )


def _float32(name: str, weights: np.ndarray) -> np.ndarray:
    """Convert an array of a state dict, and check that a trained network can have it."""
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        raise UserError(
            f"the state dict's {name} has dtype {weights.dtype}, expected floating-point numbers: pass the "
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
            f"the state dict's {name} has {np.count_nonzero(wrong):,} of {wrong.size:,} values such as "
            f"{weights[wrong][0]}, expected {expected}: pass the weights of a training that succeeded"
        )
    return result


def _torch_name(path: tuple[str, ...]) -> str:
    """('params', 'stage2_block0', 'conv1', 'kernel') -> 'layer2.0.conv1.weight'."""
    _, *modules, leaf = path
    name = ".".join(modules)
    for pattern, replacement in _MODULES.items():
        if re.fullmatch(pattern, name):
            name = re.sub(pattern, replacement, name)
            break
    return f"{name}.{_LEAVES[leaf]}"


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in np.argsort(_AXES[len(shape)]))


def _check(
    given: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], module: ResNet
) -> None:
    """Raise unless names and shapes agree."""
    missing = [name for name in shapes if name not in given]
    unexpected = [name for name in given if name not in shapes]
    different = [
        f"{name} of shape {tuple(given[name].shape)} instead of {shape}"
        for name, shape in shapes.items()
        if name in given and tuple(given[name].shape) != shape
    ]
    groups = {"missing": missing, "unexpected": unexpected, "with": different}
    problems = [f"{group} {listed(names)}" for group, names in groups.items() if names]
    if not problems:
        return
    fixes = []
    if "fc.weight" in given and len(given["fc.weight"]) != module.num_classes:
        fixes.append(f"build the network with num_classes={len(given['fc.weight'])}")
    if missing or unexpected or not fixes:
        fixes.append(
            f"pass the state dict of resnet{module.depth}, or build the network with the depth of the "
            "state dict"
        )
    raise UserError(
        f"the state dict does not fit ResNet-{module.depth} with {module.num_classes} classes: "
        f"{'; '.join(problems)}: {'; '.join(fixes)}"
    )
