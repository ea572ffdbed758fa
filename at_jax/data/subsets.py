"""Class-balanced subsets of a data set.

A subset (held-out images, labeled images) depends only on the seed, so the runs that train the teacher and
the student choose the same one without exchanging data.
"""

import dataclasses

import numpy as np

from at_jax.data.dataset import Dataset
from at_jax.errors import UserError, listed, printable

__all__ = ["few_labels", "hold_out"]

# Last number of the seed of a generator: keeps the subsets independent of each other.
_HOLD_OUT, _FEW_LABELS = 1, 2


def hold_out(dataset: Dataset, examples: int, seed: int) -> Dataset:
    """Replace the test split by class-balanced images from the training split.

    The test split is not used, so hyperparameters may be tuned on the result. The mean and standard
    deviation are still those of the whole training split: they use no labels.

    A class gives at most half of its images, unless the others have too few. Every class keeps at least one
    image to train on. A class that has only one is therefore not in the validation split; the data set's
    notes report this.

    Args:
      dataset: data set with N training images of K classes.
      examples: number of images to hold out, K <= examples <= N - K.
      seed: at least 0; the choice depends on it alone.

    Returns:
      A data set with N - examples training images and ``evaluated_on="validation"``.

    Raises:
      UserError: if ``examples`` or ``seed`` is out of range.
    """
    held = _balanced(dataset, examples, seed, _HOLD_OUT, "hold-out from")
    kept = np.setdiff1d(np.arange(len(dataset.train)), held)
    counts = np.bincount(dataset.train.labels, minlength=dataset.num_classes)
    notes = dataset.notes
    if single := [printable(dataset.class_names[k]) for k in np.flatnonzero(counts == 1)]:
        notes += (f"not in the validation images: {listed(single)} (only one image, to train on)",)
    return dataclasses.replace(
        dataset,
        train=dataset.train.select(kept),
        test=dataset.train.select(held),
        evaluated_on="validation",
        notes=notes,
    )


def few_labels(dataset: Dataset, examples: int, seed: int) -> Dataset:
    """Keep a class-balanced subset of the training images.

    Class counts differ by at most 1, unless a class has too few images. With the same seed, a smaller
    subset is contained in a larger one. The mean and standard deviation are still those of the whole
    training split: they use no labels, and student and teacher must share them.

    Args:
      dataset: data set with N training images of K classes.
      examples: number of images to keep, K <= examples <= N; 0 keeps all.
      seed: at least 0; the choice depends on it alone.

    Returns:
      A data set with ``examples`` training images, in their original order.

    Raises:
      UserError: if ``examples`` or ``seed`` is out of range.
    """
    if examples == 0:
        return dataset
    kept = _balanced(dataset, examples, seed, _FEW_LABELS, "few labels of")
    return dataclasses.replace(dataset, train=dataset.train.select(kept))


def _balanced(dataset: Dataset, examples: int, seed: int, purpose: int, what: str) -> np.ndarray:
    """Return the ascending indices (examples,) of a class-balanced choice of training images."""
    labels, available = dataset.train.labels, len(dataset.train)
    counts = np.bincount(labels, minlength=dataset.num_classes)
    # Of every class, one image stays to train on.
    kept = int(np.count_nonzero(counts)) if purpose == _HOLD_OUT else 0
    if not dataset.num_classes <= examples <= available - kept:
        most = "all training images"
        if kept:
            most = f"of its {available} training images, one per class is kept for training"
        raise UserError(
            f"{what} {dataset.name!r}: expected from {dataset.num_classes} (one image per class) to "
            f"{available - kept} ({most}), got {examples}: choose a number in that range"
        )
    if seed < 0:
        raise UserError(f"{what} {dataset.name!r}: expected a seed of 0 or more, got {seed}: use 0")
    rng = np.random.default_rng((seed, purpose))
    order = rng.permutation(available)
    # rank[i]: number of examples of the same class before example i in the shuffled order. Taking the
    # lowest ranks first fills all classes evenly; a random place of each class breaks ties.
    by_class = order[np.argsort(labels[order], kind="stable")]
    rank = np.empty(available, np.int64)
    rank[by_class] = np.arange(available) - np.repeat(np.cumsum(counts) - counts, counts)
    if kept:
        # The second half of a class comes after the first halves of all; the last image is never chosen.
        rank[rank >= np.maximum(counts // 2, 1)[labels]] += available
        rank[by_class[np.cumsum(counts)[counts > 0] - 1]] = 2 * available
    place = rng.permutation(dataset.num_classes)
    return np.sort(np.lexsort((place[labels], rank))[:examples])
