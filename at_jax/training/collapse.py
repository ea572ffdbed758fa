"""Detection of a student that has become a constant: it gives all images the same probabilities.

Any method can end there. The input gradient of a constant vanishes, so a term on input gradients with a
large weight makes it a minimum of the loss; a learning rate that is too high kills all units of a layer.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from at_jax.errors import listed
from at_jax.training.setup import Run

__all__ = ["KEY", "is_collapsed", "is_constant", "is_new", "warning"]

# Of an epoch's line in metrics.jsonl (1 where the student is a constant) and of result.json.
KEY = "constant_student"
# In nats. With logits that vary over images by s, the information is about s^2 / 2: 5e-5 is s = 0.01, about
# the rounding of bfloat16. Float32 sums leave at most 1e-6 of a constant; a student that learns has tenths.
_LEAST_INFORMATION = 5e-5


def is_constant(run: Run, information: float, train_error: float) -> bool:
    """Whether a student gives all evaluated images the same probabilities and has learned nothing.

    The first alone is no collapse: running averages of batch normalization lag behind in the first few
    dozen steps, so that a student that learns well may predict one class with certainty in evaluation mode.

    Args:
      run: whose data is evaluated.
      information: of the predictions, see :func:`at_jax.training.metrics.information`.
      train_error: of the epoch, in percent.
    """
    if not information < _LEAST_INFORMATION:  # NaN is no constant
        return False
    test, train = run.dataset.test.labels, run.dataset.train.labels
    share = np.max(np.bincount(train)) / len(train)
    # Training accuracy of a guess: the share of a class at most, and three standard deviations.
    images = run.steps_per_epoch * run.settings.batch_size
    guessed = share + 3 * math.sqrt(share * (1 - share) / images)
    return bool(np.any(test != test[0]) and 1 - train_error / 100 <= guessed)


def is_collapsed(lines: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a student was a constant after each of the last two epochs.

    One epoch may end so without being the end of learning: in a short first epoch little is learned, and a
    classifier that starts at zero hardly moves while the learning rate warms up.

    Args:
      lines: of metrics.jsonl.
    """
    return len(lines) >= 2 and all(line.get(KEY) for line in lines[-2:])


def is_new(lines: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last line is the first after which :func:`is_collapsed` holds."""
    before = itertools.pairwise(lines[:-1])
    return is_collapsed(lines) and not any(a.get(KEY) and b.get(KEY) for a, b in before)


def warning(run: Run, line: Mapping[str, Any]) -> str:
    """Format the warning of a collapse: its epoch, the probable cause, and the key to change.

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
    if not weights and not run.reads_rate:
        return f"{seen}. The learning rate of optimizer= is probably too high: lower it"
    if not weights:
        rate = f"optimizer.learning_rate={run.settings.optimizer.learning_rate:g}"
        return f"{seen}. {rate} is probably too high: lower optimizer.learning_rate"
    terms = " and ".join(f"{name} (weight {weight:g})" for name, weight in weights.items())
    keys = listed(f"{name}.beta" for name in weights)
    return (
        f"{seen}. The rest of the loss is probably outweighed by {terms}, because a constant has no input "
        f"gradient: lower {keys}"
    )
