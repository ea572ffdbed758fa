"""Trained networks in the formats of other programs: safetensors for PyTorch, and StableHLO."""

import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax import data, extras
from at_jax.models import pretrained
from at_jax.training.components import networks

__all__ = ["PLATFORMS", "to_safetensors", "to_stablehlo"]

PLATFORMS = ("cpu", "cuda", "tpu")


def to_safetensors(
    workdir: str | pathlib.Path, *, which: str = "latest", module: nn.Module | str | None = None
) -> bytes:
    """Format the weights of a run as a safetensors file, with torchvision's names for a ResNet.

    Its header has the normalization, image size and classes, see
    :func:`at_jax.models.pretrained.description`.

    Args:
      workdir: of the run.
      which: ``"latest"`` or ``"best"``.
      module: see :func:`at_jax.checkpoint.load`.

    Raises:
      UserError: if there is no run, its network has no names in PyTorch, or safetensors is missing.
    """
    network, variables, described = networks.open_run(workdir, which=which, module=module)
    header = pretrained.metadata(described)
    return pretrained.dumps(pretrained.state_dict(variables, network), header)


def to_stablehlo(
    workdir: str | pathlib.Path, *, which: str = "latest", module: nn.Module | str | None = None
) -> bytes:
    """Export the network of a run as StableHLO, which ``jax.export.deserialize`` reads without at_jax.

    Its function takes images ``(B, H, W, C)`` in 0..255, float32 and not normalized, B at least 1 and of
    the run's size, and returns logits ``(B, K)``. The weights are a part of it.

    Args:
      workdir: of the run.
      which: ``"latest"`` or ``"best"``.
      module: see :func:`at_jax.checkpoint.load`.

    Raises:
      UserError: if there is no run, its network needs a teacher, or flatbuffers is missing.
    """
    with extras.needed_for("exporting StableHLO"):
        import flatbuffers  # noqa: F401  jax imports it at the end
    network, variables, described = networks.open_run(workdir, which=which, module=module)
    networks.check_needs_no_teacher(described, workdir)

    def logits(images: jax.Array) -> Any:
        normalized = data.normalize(images, described["mean"], described["std"])
        return network.apply(variables, normalized, train=False)

    batch = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((*batch, *described["image_shape"]), jnp.float32)
    exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())
