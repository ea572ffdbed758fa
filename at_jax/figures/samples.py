"""Photographs that ship with scikit-learn and matplotlib, for figures without images of the user."""

from at_jax import extras
from at_jax.errors import UserError

__all__ = ["photographs"]

_PHOTOGRAPHS = {
    "china.jpg": ("sklearn", "datasets/images"),
    "flower.jpg": ("sklearn", "datasets/images"),
    "grace_hopper.jpg": ("matplotlib", "mpl-data/sample_data"),
}


def photographs() -> list[str]:
    """Paths of the photographs: a palace, a flower, and Grace Hopper. The packages are not imported.

    Raises:
      UserError: if a package is not installed, or comes without its photographs.
    """
    found = []
    for name, (package, folder) in _PHOTOGRAPHS.items():
        path = extras.file_of(package, f"{folder}/{name}", "a figure without --images")
        if path is None:
            raise UserError(f"the installed {package} has no {folder}/{name}: pass --images")
        found.append(str(path))
    return found
