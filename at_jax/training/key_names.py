"""Suggestions for unknown config keys. Imports no jax."""

import difflib
from collections.abc import Iterable

__all__ = ["main_key", "nearest"]

# What other libraries call a key, to its last part here.
_ALIASES = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "weight": "beta",
    "bs": "batch_size",
    "t": "temperature",
    "temp": "temperature",
    "num_epochs": "epochs",
    "warmup": "warmup_epochs",
}
# The key that is meant by the name of a section, such as --config.teacher=resnet_34.
_MAIN = {
    "teacher": "model",
    "optimizer": "name",
    "data": "data_dir",
    "transfer": "decay",
    "init": "weights",
}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the key that was meant by a name that is none.

    Args:
      name: dotted, or the last part of a key.
      known: dotted keys.

    Returns:
      A key of the same section if the section exists; None if no key is close.

    >>> keys = ["optimizer.learning_rate", "at.beta", "init.weights", "batch_size", "data.pad"]
    >>> [nearest(name, keys) for name in ("optimizer.lr", "at.betta", "lr", "bs", "at.quux")]
    ['optimizer.learning_rate', 'at.beta', 'optimizer.learning_rate', 'batch_size', None]
    >>> nearest("init.weight", keys), nearest("at.weight", keys), nearest("data.batch_size", keys)
    ('init.weights', 'at.beta', 'batch_size')
    """
    keys = list(known)
    section, dot, last = name.rpartition(".")
    alias = _ALIASES.get(last.lower(), last)
    if inner := [key for key in keys if dot and key.startswith(f"{section}.")]:
        for exact in (f"{section}.{alias}", last):
            if exact in keys:
                return exact
        close = difflib.get_close_matches(
            last, [key.removeprefix(f"{section}.") for key in inner], n=1
        )
        return f"{section}.{close[0]}" if close else None
    same = [key for key in keys if key.rpartition(".")[2] == alias]
    return next(iter(same or difflib.get_close_matches(f"{section}{dot}{last}", keys, n=1)), None)


def main_key(section: str, known: Iterable[str]) -> str:
    """The first key to set in a section.

    >>> keys = ["at.align", "at.beta", "teacher.checkpoint", "teacher.model"]
    >>> main_key("teacher", keys), main_key("at", keys)
    ('teacher.model', 'at.beta')
    """
    inner = sorted(key for key in known if key.startswith(f"{section}."))
    wanted = f"{section}.{_MAIN.get(section, 'beta')}"
    return wanted if wanted in inner else inner[0]
