"""Config files: found by name or path, loaded, and their parts after the colon."""

import difflib
import importlib.util
import os
import pathlib
import traceback

import ml_collections

from at_jax.errors import UserError, listed, printable

__all__ = ["apply_parts", "find", "folder", "load", "load_flag", "names"]

_HELP = "write for example --config=cifar10:student=wrn_16_1,teacher=wrn_16_2,method=at"


def folder() -> pathlib.Path:
    """Folder of the config files: ``at_jax/configs`` of a wheel, or ``configs`` next to ``at_jax``."""
    package = pathlib.Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """Names of the configs that come with the library.

    >>> "digits" in names()
    True
    """
    return sorted(path.stem for path in folder().glob("*.py") if path.stem != "__init__")


def find(text: str) -> pathlib.Path:
    """Find a config file by its name or path.

    Args:
      text: a name of :func:`names`, or the path of a file.

    Raises:
      UserError: if there is neither.

    >>> find("digits").name
    'digits.py'
    """
    if text in names():
        return folder() / f"{text}.py"
    path = pathlib.Path(text).expanduser()
    if path.is_file():
        return path
    files = sorted(map(str, path.parent.glob("*.py"))) if path.suffix else []
    near = {name: name for name in (*files, *names())}
    near |= {f"configs/{name}.py": name for name in names()}
    close = difflib.get_close_matches(text, near, n=1)
    hint = f"did you mean {near[close[0]]}?" if close else "give the path of one"
    raise UserError(f"--config must be one of {', '.join(names())} or a file, got {text!r}: {hint}")


def load(text: str, parts: str | None = None) -> ml_collections.ConfigDict:
    """Load a config.

    Args:
      text: as for :func:`find`.
      parts: what a command line writes after the colon, such as ``"method=at"``.

    Returns:
      A new config.

    Raises:
      UserError: if there is no such file, or it does not take the parts.

    >>> load("digits", "method=kd").method
    'kd'
    """
    path = find(text)
    if path.suffix != ".py":
        raise UserError(f"--config must be a config or a Python file, got {path}: {_HELP}")
    spec = importlib.util.spec_from_file_location(f"at_jax_config_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(parts) if parts else module.get_config()


def load_flag(text: str) -> ml_collections.ConfigDict:
    """Load the config of a flag, and check what its file returns.

    Args:
      text: ``NAME[:PARTS]``.

    Returns:
      A new config, with every key.

    Raises:
      UserError: if there is no such file, its code raises, or it does not return a whole config.

    >>> load_flag("digits:method=kd,student=wrn_16_1").student
    'wrn_16_1'
    """
    from at_jax.training.config import default_values, flatten  # imports jax: not for --help

    name, _, parts = text.partition(":")
    path = find(name)
    try:
        config = load(name, parts)
    except UserError:
        raise
    except Exception as error:  # any code of the user
        file, frames = os.path.abspath(path), traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == file]
        if isinstance(error, SyntaxError) and error.filename == file:
            lines = [error.lineno]
        where = f", line {lines[-1]}," if lines else ""
        fix = (
            "correct this line"
            if lines
            else "it must define get_config(parts=None), as configs/folder.py does"
        )
        raise UserError(
            f"--config: {path}{where} cannot be loaded, got {type(error).__name__}: "
            f"{printable(str(error))}: {fix}"
        ) from error
    keys = flatten(config.to_dict()) if isinstance(config, ml_collections.ConfigDict) else {}
    if missing := sorted(default_values().keys() - keys.keys()):
        got = f"a config without {listed(missing)}" if keys else type(config).__name__
        raise UserError(
            f"--config: get_config of {path} must return a config with all keys, got {got}: change values "
            "of at_jax.training.config.default_config() and return it"
        )
    return ml_collections.ConfigDict(config.to_dict())  # not frozen


def apply_parts(
    config: ml_collections.ConfigDict, text: str | None, others: dict[str, str] | None = None
) -> ml_collections.ConfigDict:
    """Set the keys named after the colon of ``--config=NAME:PARTS``.

    Args:
      config: modified in place.
      text: ``key=value,key=value``, each optional; None or empty changes nothing.
      others: further names of a config file, each with the dotted config key that it sets.

    Returns:
      The config.

    Raises:
      UserError: for a part without ``=``, or an unknown name.
    """
    keys = {"student": "student", "teacher": "teacher.model", "method": "method", **(others or {})}
    for part in filter(None, (text or "").split(",")):
        key, equals, value = part.partition("=")
        if not equals or key not in keys:
            close = difflib.get_close_matches(key, keys, n=1)
            hint = f"; did you mean {close[0]!r}?" if close and equals else ""
            if not equals and "data" in keys:
                hint = "; a path with a comma needs --config.data.data_dir=DIR"
            raise UserError(
                f"--config, after the colon: {part!r} is not one of "
                f"{', '.join(f'{k}=...' for k in keys)}{hint}: {_HELP}"
            )
        config.update_from_flattened_dict({keys[key]: value})
    return config
