"""Random values of config keys, as texts of a command line."""

import numpy as np

from at_jax.terms import TERMS
from at_jax.training.config import default_values

__all__ = ["draw"]

# Drawn for a key of each type, in addition to values of its own.
_STRANGE = (
    "", "abc", "None", "１０", "ünï", "nan", "inf", "-inf", "9" * 400, "a\nb", "\0", "()", "1e999",
)  # fmt: skip
_NUMBERS = (
    "0", "1", "-1", "2", "7", "2147483647", "2147483648", "-2147483649", str(2**70), "1e-30", "1e-3",
    "0.5", "1.5", "1e3", "1e10", "1e20", "1e30", "1e300", "-1e30", "1e-300", "0x10", "1_0", "100", "20",
)  # fmt: skip
_TUPLES = (
    "(1,)", "(1,2)", "(2,1)", "(0,)", "(-1,)", "(1.5,)", "('a',)", "(1e30,)", "(1e-30,)", "(nan,)",
    f"({2**70},)", "((1,),)", "[1]", "{}", "(1", "(128.0,)", "(60.0,)", "('only<-only',)", "(None,)",
)  # fmt: skip
_TEXTS = {
    "student": (
        "wrn_16_1", "wrn_11_1", "wrn_１０_1", "wrn_10_1000000", "wrn_100006_1", "resnet_19", "nin_thin",
    ),
    "method": (*TERMS, "none", "at+at", "at+gradient_at", "kd+min_l2", "AT", "at+", "+"),
    "compare": ("('none',)", "('none','at')", "('none','none')", "('x',)", "('at+kd','kd+at')"),
    "optimizer.name": ("sgd", "adamw", "lamb", "adam"),
    "optimizer.schedule": ("steps", "cosine", "one_cycle", "constant", "linear"),
    "optimizer.decay_mask": ("all", "kernels", "biases"),
    "transfer.decay": ("constant", "linear", "cosine", "steps", "exp"),
    "at.kind": ("sum", "max", "channel", "mean"),
    "at.convention": ("code", "paper", "torch"),
    "dtype": ("float32", "bfloat16", "float16"),
    "data.source": ("digits", "folder", "tfds", "mnist"),
    "data.data_dir": ("/nowhere", "~"),
    "teacher.checkpoint": ("/nowhere",),
}  # fmt: skip
_TEXTS["teacher.model"] = _TEXTS["student"]


def draw(rng: np.random.Generator) -> dict[str, str]:
    """Draw one to three keys, with values: usual, at a boundary, extreme, of another type, not ASCII.

    Args:
      rng: generator of the draws.

    Returns:
      Key to the text after ``--config.KEY=``.
    """
    defaults = default_values()
    drawn = {}
    for key in rng.choice(list(defaults), size=rng.integers(1, 4), replace=False):
        default = defaults[key]
        if isinstance(default, list):
            pool = (*_TUPLES, *_TEXTS.get(key, ()))
        elif isinstance(default, bool):
            pool = ("true", "false", "1", "0")
        elif isinstance(default, str):
            pool = _TEXTS.get(key, ())
        else:
            pool = (*_NUMBERS, str(default))
        strange = not pool or rng.random() < 0.2
        drawn[str(key)] = str(rng.choice(_STRANGE if strange else pool))
    return drawn
