"""A data set of NumPy arrays, and an augmentation of one example, passed to the trainer.

    python -m examples.own_data

Any object with ``__len__`` and ``__getitem__ -> (image, label)`` works too: ``at_jax.data.from_source``.
"""

import jax
import jax.numpy as jnp
import numpy as np

from at_jax import data, loop
from at_jax.training import config_files


def stripes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make noisy images of horizontal and vertical stripes: uint8 (N, 16, 16, 1), int (N,)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pattern = np.tile(np.array([0, 0, 120, 120]), 4)
    images = np.broadcast_to(pattern, (count, 16, 16)).copy()
    images[labels == 0] = images[labels == 0].swapaxes(1, 2)
    noisy = images + rng.integers(0, 120, images.shape)
    return noisy.astype(np.uint8)[..., None], labels


def darken(key: jax.Array, image: jax.Array) -> jax.Array:
    """Scale the brightness of one example by a random factor: (H, W, C) -> (H, W, C)."""
    factor = jax.random.uniform(key, minval=0.5)
    return (factor * image.astype(jnp.float32)).astype(image.dtype)


def main(workdir: str = "runs/own_data", **changes) -> dict:
    """Train teacher and student on the arrays; ``changes`` are config keys."""
    dataset = data.from_arrays(
        *stripes(200, seed=0), *stripes(100, seed=1), class_names=("horizontal", "vertical")
    )
    config = config_files.load("digits", "method=at")
    config.data.train_examples = 100  # labeled images of the student
    config.update_from_flattened_dict(changes)
    return loop.train_and_evaluate(config, workdir, dataset=dataset, augment=darken)


if __name__ == "__main__":
    main()
