"""The data set of a config."""

import dataclasses
import functools
from typing import Any

import ml_collections

from at_jax import data, processes

# Decoding a data set takes seconds; teacher and student of one command use the same one.
_load = functools.lru_cache(maxsize=1)(data.load)


def load_data(config: ml_collections.ConfigDict, *, hold_out: bool = True) -> data.Dataset:
    """The data set of a config, with its few labels and its validation part chosen.

    Args:
      config: checked.
      hold_out: False leaves the test set as what is evaluated, whatever the config holds out.

    Returns:
      The data set; one object for configs that ask for the same images.

    Raises:
      ValueError: if the images cannot be read, or the choice of them cannot be made.
    """
    load = functools.partial(
        _chosen,
        config.data.source,
        name=config.data.name,
        data_dir=config.data.data_dir,
        image_size=config.data.image_size,
        memory_limit_mb=config.data.memory_limit_mb,
        held_out=config.data.validation_examples if hold_out else 0,
        examples=config.data.train_examples,
        split_seed=config.data.split_seed,
    )
    # Each process reads its machine's own copy.
    dataset = processes.on_all(load)
    processes.check_same(dataset.summary())
    if config.data.mean:
        channels = dataset.image_shape[-1]
        if len(config.data.mean) != channels:
            raise ValueError(
                f"data.mean must have one number a channel, {channels} for {dataset.name}, got "
                f"{config.data.mean}"
            )
        dataset = dataclasses.replace(dataset, mean=config.data.mean, std=config.data.std)
    return dataset


# Two: the teacher's choice and the student's. Students that are trained together share their images.
@functools.lru_cache(maxsize=2)
def _chosen(
    source: str, *, held_out: int, examples: int, split_seed: int, **options: Any
) -> data.Dataset:
    dataset = _load(source, **options)
    if held_out:
        dataset = data.hold_out(dataset, held_out, split_seed)
    return data.few_labels(dataset, examples, split_seed)
