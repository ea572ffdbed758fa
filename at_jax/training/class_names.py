"""Files of class names."""

from at_jax import paths
from at_jax.data.files import listing
from at_jax.errors import UserError

__all__ = ["read"]


def read(path: str) -> list[str]:
    """Read a text file of class names, one per line.

    Raises:
      UserError: if it cannot be read, or a line is empty.
    """
    try:
        text = paths.parse(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(
            f"--class_names: {path!r} cannot be read ({reason}): give a text file, one name per line"
        ) from error
    # As the names of directories are compared: a list of a Mac's directory is in decomposed form.
    names = [listing.normal(line.strip()) for line in text.strip().splitlines()]
    if empty := [number for number, name in enumerate(names, 1) if not name]:
        raise UserError(
            f"--class_names: {path!r} must have a name in each line, got none in line {empty[0]}: delete "
            "the line, or write the name"
        )
    return names
