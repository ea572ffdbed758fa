"""Loading of trained networks."""

import pathlib
from typing import Any

import flax.linen as nn

from at_jax.training.components.networks import open_run

__all__ = ["load", "open_run"]


def load(
    workdir: str | pathlib.Path, *, which: str = "latest", module: nn.Module | str | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Load a trained model.

    Args:
      workdir: of a run of ``at-jax train`` or :func:`at_jax.loop.train_and_evaluate`; a local path,
        ``gs://`` or ``s3://``.
      which: ``"latest"``, as in the paper, or ``"best"`` on the evaluated split.
      module: for a run that trained a user-defined module: an instance, or ``"package:name"``.

    Returns:
      The linen module and its variables: ``module.apply(variables, images, train=False)``. The images are
      normalized (:func:`at_jax.data.normalize`) with the mean and std of :func:`open_run`.

    Raises:
      UserError: if there is no valid checkpoint, or the module must be passed.
    """
    return open_run(workdir, which=which, module=module)[:2]
