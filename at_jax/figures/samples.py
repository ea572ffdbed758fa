"""Photographs that ship with scikit-learn and matplotlib, for figures without images of the user."""

import importlib.util
import pathlib

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
        spec = importlib.util.find_spec(package)
        if spec is None:
            line = extras.missing(ModuleNotFoundError(name=package), "a figure without --images")
            raise UserError(str(line))
        places = spec.submodule_search_locations or ()
        paths = [pathlib.Path(place, folder, name) for place in places]
        if not paths or not paths[0].is_file():
            raise UserError(f"the installed {package} has no {folder}/{name}: pass --images")
        found.append(str(paths[0]))
    return found
