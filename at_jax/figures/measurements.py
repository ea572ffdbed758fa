"""Measurements of a run's student: predictions, confusion of classes, agreement with its teacher."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from at_jax import agreement, data
from at_jax.figures import pairing
from at_jax.figures.networks import Network
from at_jax.figures.report_page import Agreement

__all__ = ["Measurements", "measure"]

_MAX_IMAGES = 10_000  # for confusion and agreement


@dataclasses.dataclass(frozen=True, eq=False)
class Measurements:
    """Results of a student on the images that it is evaluated on.

    Attributes:
      split: the N images.
      predictions: classes ``(N,)``.
      confusion: counts ``(K, K)``, one row per true class.
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
    most: int = _MAX_IMAGES,
) -> Measurements:
    """Measure a student on a split, and its agreement with its teacher.

    Args:
      student: of the run.
      teacher: None without one.
      split: images that the run is evaluated on.
      points: ``transfer.points`` of the config.
      batch: number of images of a forward pass.
      most: at most this number of images, evenly spaced.
    """
    if len(split) > most:
        split = split.select(np.linspace(0, len(split) - 1, most).astype(np.int64))
    predictions: list[np.ndarray] = []
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for part in data.eval_batches(split, batch):
        real = part["weight"] > 0
        logits, (maps,) = student.attention(part["image"])
        predictions.append(logits.argmax(axis=-1)[real])
        if teacher is not None:
            values = _compare(student, teacher, logits, maps, part["image"], points)
            for key, value in values.items():
                found.setdefault(key, []).append(value[real])
    predicted = np.concatenate(predictions)
    confusion = agreement.confusion(split.labels, predicted, student.description["num_classes"])
    if teacher is None:
        return Measurements(split, predicted, confusion, None)
    means = {key: float(np.mean(np.concatenate(each))) for key, each in found.items()}
    agreed = Agreement(
        means.get(("classes", "top1")),
        means.get(("classes", "divergence")),
        {name: r for (kind, name), r in means.items() if kind == "maps"},
    )
    return Measurements(split, predicted, confusion, agreed)


def _compare(
    student: Network,
    teacher: Network,
    logits_s: np.ndarray,
    maps_s: Mapping[str, np.ndarray],
    pixels: np.ndarray,
    points: Sequence[str],
) -> dict[tuple[str, str], np.ndarray]:
    """Agreement of both networks on each image ``(B,)``: of their classes, and at every transfer point."""
    logits_t, (maps_t,) = teacher.attention(pixels)
    values = {}
    if teacher.has_classes_of(student):
        values["classes", "top1"] = agreement.top1(logits_s, logits_t)
        values["classes", "divergence"] = agreement.divergence(logits_s, logits_t)
    for s, t in pairing.pairs(points, tuple(maps_s), tuple(maps_t)):
        name = s if s == t else f"{s} and the teacher's {t}"
        values["maps", name] = agreement.correlation(maps_s[s], maps_t[t])
    return values
