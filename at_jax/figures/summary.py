"""What a finished run's page says in numbers: confusion of classes, agreement with the teacher."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from at_jax import agreement, data
from at_jax.figures import networks
from at_jax.figures.networks import Network


@dataclasses.dataclass(frozen=True, eq=False)
class Agreement:
    """How far student and teacher agree, means over images.

    Attributes:
      top1: share of the images to which both give one class, 0..1.
      divergence: KL(teacher || student) of their probabilities, in nats.
      correlation: point -> Pearson's correlation of their maps F_sum^2, -1..1.
    """

    top1: float
    divergence: float
    correlation: dict[str, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Summary:
    """A network on the images it is evaluated on.

    Attributes:
      split: the images that were looked at, N of them.
      predictions: ``(N,)``, the student's.
      confusion: ``(K, K)``, a row a true class.
      agreement: None without a teacher.
    """

    split: data.Split
    predictions: np.ndarray
    confusion: np.ndarray
    agreement: Agreement | None


def measure(
    student: Network,
    teacher: Network | None,
    split: data.Split,
    *,
    points: Sequence[str] = (),
    batch: int,
    most: int,
) -> Summary:
    """Look at a split through both networks.

    Args:
      student: of the run.
      teacher: of the run, or None.
      split: what the run was evaluated on.
      points: ``transfer.points`` of the run's config.
      batch: images at a time.
      most: images looked at, evenly spaced; a large set is long.

    Returns:
      The numbers.
    """
    if len(split) > most:
        split = split.select(np.linspace(0, len(split) - 1, most).astype(np.int64))
    predictions, same, divergences = [], [], []
    correlations: dict[str, list[np.ndarray]] = {}
    for part in data.eval_batches(split, batch):
        real = part["weight"] > 0
        logits_s, maps_s = student.look(part["image"])
        predictions.append(logits_s.argmax(axis=-1)[real])
        if teacher is None:
            continue
        logits_t, maps_t = teacher.look(part["image"])
        same.append(agreement.top1(logits_s, logits_t)[real])
        divergences.append(agreement.divergence(logits_s, logits_t)[real])
        for s, t in networks.pairs(points, tuple(maps_s), tuple(maps_t)):
            name = s if s == t else f"{s} and the teacher's {t}"
            found = agreement.correlation(maps_s[s], maps_t[t])[real]
            correlations.setdefault(name, []).append(found)
    named = np.concatenate(predictions)
    return Summary(
        split,
        named,
        agreement.confusion(split.labels, named, student.description["num_classes"]),
        Agreement(
            float(np.mean(np.concatenate(same))),
            float(np.mean(np.concatenate(divergences))),
            {name: float(np.mean(np.concatenate(r))) for name, r in correlations.items()},
        )
        if teacher is not None
        else None,
    )
