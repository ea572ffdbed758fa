"""Data sets, subsets, batches, and augmentation on the device.

- Data sets: ``dataset``, ``subsets``, ``identity``; from arrays and objects, ``custom`` and ``checks``.
- Sources: ``sources``, ``load_options``, ``digits``, and the packages ``folder`` and ``tfds``, whose images
  are read by ``files``; ``prepare`` downloads TFDS sets.
- From encoded images to splits: ``decoding``, ``crops``, ``memory``, ``threads``.
- Training: ``batches``, ``streaming``; on the device, ``augmentation`` and ``color``.
"""

from at_jax.data.augmentation import augment, augment_each, check_range, normalize
from at_jax.data.batches import TrainBatches, eval_batches
from at_jax.data.color import color_jitter
from at_jax.data.custom import from_arrays, from_source
from at_jax.data.dataset import Dataset, Split, channel_statistics
from at_jax.data.sources import load
from at_jax.data.streaming import Stream
from at_jax.data.subsets import few_labels, hold_out

__all__ = [
    "Dataset",
    "Split",
    "Stream",
    "TrainBatches",
    "augment",
    "augment_each",
    "channel_statistics",
    "check_range",
    "color_jitter",
    "eval_batches",
    "few_labels",
    "from_arrays",
    "from_source",
    "hold_out",
    "load",
    "normalize",
]
