"""Detection of a student that has become a constant: it gives all images the same probabilities.

Any method can end there. The input gradient of a constant vanishes, so a term on input gradients with a
large weight makes it a minimum of the loss; a learning rate that is too high kills all units of a layer.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from at_jax.errors import listed
from at_jax.training.setup import Run

__all__ = ["KEY", "is_collapsed", "is_constant", "warning"]

# Of an epoch's line in metrics.jsonl (1 where the student is a constant) and of result.json.
KEY = "constant_student"
# In nats. With logits that vary over images by s, the information is about s^2 / 2: 5e-5 is s = 0.01. The
# rounding of float32 sums leaves about 1e-6 of it. A constant student has at most that, see docs/methods; a
# student that has begun to learn has tenths of a nat.
_LEAST_INFORMATION = 5e-5


def is_constant(information: float) -> bool:
    """Whether predictions with this :func:`at_jax.training.metrics.information` are those of a constant."""
    return math.isfinite(information) and information < _LEAST_INFORMATION


def is_collapsed(lines: Sequence[Mapping[str, Any]], epochs: int) -> bool:
    """Whether the newest line of metrics.jsonl is the first that ends in a collapse.

    One epoch may end in a constant without being the end of learning: a classifier that starts at zero
    hardly moves while the learning rate warms up. Two in a row count, and the last epoch alone, because its
    student is the result.

    Args:
      lines: of all epochs so far.
      epochs: of the whole run.
    """

    def collapsed(end: int) -> bool:
        pair = lines[max(end - 2, 0) : end]
        is_last = bool(pair) and pair[-1]["epoch"] == epochs
        needed = 1 if is_last else 2
        return len(pair) >= needed and all(line.get(KEY) for line in pair[-needed:])

    return collapsed(len(lines)) and not any(collapsed(end) for end in range(len(lines)))


def warning(run: Run, line: Mapping[str, Any]) -> str:
    """Say what was seen, the probable cause, and the key to change, in one line.

    Args:
      run: that collapsed.
      line: of the epoch, in metrics.jsonl.
    """
    seen = (
        f"Warning: epoch {line['epoch']}: {run.name} has become a constant: it gives all images of the "
        f"{run.dataset.evaluated_on} split the same probabilities"
    )
    weights = {
        term.name: weight
        for term in run.objective.terms
        # Terms on input gradients report the student's norm. A term may begin late.
        if f"gradient_norm_student/{term.metric}" in line
        and term.name in run.weights
        and (weight := float(run.weights[term.name](line["step"] - 1)))
    }
    if not weights:
        rate = f"optimizer.learning_rate={run.settings.optimizer.learning_rate:g}"
        return f"{seen}. {rate} is probably too high: lower optimizer.learning_rate"
    terms = " and ".join(f"{name} with weight {weight:g}" for name, weight in weights.items())
    keys = listed(f"{name}.beta" for name in weights)
    return (
        f"{seen}. Probably {terms} outweighs the cross-entropy, because a constant has no input gradient: "
        f"lower {keys}"
    )
