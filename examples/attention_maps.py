"""Attention maps as arrays, for a notebook: where student and teacher look, and how alike.

    python -m examples.attention_maps runs/digits

Opens a finished run of train.py that had a teacher, needs no matplotlib, and prints for every transfer
point the correlation of the two maps of each of some test images.
"""

import sys

import ml_collections
import numpy as np

from at_jax import agreement, checkpoint, data, figures, inputs
from at_jax.figures import networks


def main(workdir: str, count: int = 5) -> dict[str, list[float]]:
    """Look at some test images, and return each point's correlations."""
    # Module, variables, and what the network was trained on: mean and std of the normalisation.
    student, variables, described = checkpoint.open_run(workdir)
    teacher = networks.teacher_of(workdir)
    config = ml_collections.ConfigDict(networks.stored_config(workdir))
    images, labels = inputs.load_data(config).test.take(np.arange(count))
    normalised = data.normalize(images, described["mean"], described["std"])  # (B, H, W, C)

    maps_s = figures.attention_maps(student, variables, normalised)  # {"group1": (B, h, w), ...}
    maps_t = figures.attention_maps(teacher.module, teacher.variables, normalised, kind="sum", p=2)
    found = {p: agreement.correlation(maps_s[p], maps_t[p]).tolist() for p in maps_s}
    print("classes ", "  ".join(f"{label:>5}" for label in labels))
    for point, values in found.items():
        print(f"{point:<8}", "  ".join(f"{r:5.2f}" for r in values))
    return found


if __name__ == "__main__":
    main(sys.argv[1])
