"""Check of a prepared TFDS set before TFDS opens it: its metadata names Python classes to import."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

from at_jax.errors import UserError, printable

__all__ = ["check_metadata"]

# Keys under which a features.json of TFDS 4 names a class; "type" is the older form.
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")
_MOST_BYTES = 2**26


def check_metadata(data_dir: str, name: str) -> None:
    """Raise if metadata that TFDS may read name a class that is not one of TFDS's own features.

    TFDS would import the module of the class, and so run its code.

    Args:
      data_dir: directory of prepared sets, or of the set.
      name: of the set, as in "name/config:version".

    Raises:
      UserError: naming the file and the class.
    """
    import tensorflow_datasets as tfds

    features = (getattr(tfds.features, each) for each in dir(tfds.features))
    classes = [each for each in features if isinstance(each, type)]
    known = {f"{each.__module__}.{each.__name__}" for each in classes}
    known.update(*(getattr(each, "ALIASES", ()) for each in classes))  # names of older versions
    for path in _metadata_files(pathlib.Path(data_dir), name):
        for found in _class_names(_parsed(path)):
            if "." in found and found not in known:
                raise UserError(
                    f"data set {name!r}: expected TFDS features in {path}, got the class "
                    f"{printable(found[:200])}, whose module TFDS would import: prepare the set again from "
                    "a source that you trust"
                )


def _metadata_files(data_dir: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    yield data_dir / "features.json"
    set_dir = data_dir / name.partition("/")[0].partition(":")[0]
    # <name>/<version> or <name>/<config>/<version>
    for pattern in ("*/features.json", "*/*/features.json"):
        yield from set_dir.glob(pattern)


def _parsed(path: pathlib.Path) -> Any:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes")
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: expected the JSON of a prepared TFDS set, got {type(error).__name__} "
            f"({printable(str(error))}): prepare the set again"
        ) from error


def _class_names(value: Any) -> Iterator[str]:
    """All names of classes in metadata, at any depth, and in texts that are JSON themselves."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from (value[key] for key in _CLASS_KEYS if isinstance(value.get(key), str))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and "{" in value:
            try:
                waiting.append(json.loads(value))
            except (ValueError, RecursionError):
                continue
