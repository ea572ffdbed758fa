"""Data: sources, choices from them, batches, augmentation on the device."""

from at_jax.data.augmentation import augment, normalize
from at_jax.data.batches import TrainBatches, eval_batches
from at_jax.data.dataset import Dataset, Split, few_labels, hold_out
from at_jax.data.sources import load

__all__ = [
    "Dataset",
    "Split",
    "TrainBatches",
    "augment",
    "eval_batches",
    "few_labels",
    "hold_out",
    "load",
    "normalize",
]
