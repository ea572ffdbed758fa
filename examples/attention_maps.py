"""Attention maps of student and teacher as arrays, and their correlation.

    python -m examples.attention_maps runs/digits

Opens a finished run that had a teacher. Needs no matplotlib. Prints the correlation of the two maps of some
test images at every transfer point.
"""

import sys

import numpy as np

from at_jax import agreement, checkpoint, data, figures
from at_jax.figures import images, teachers


def main(workdir: str, count: int = 5) -> dict[str, list[float]]:
    """Compare the maps of some test images, and return the correlations at each point."""
    # The description holds the mean and std with which the network's images were normalized.
    student, variables, description = checkpoint.open_run(workdir)
    teacher = teachers.teacher_of(workdir)
    if teacher is None:
        raise SystemExit(f"the run in {workdir} has no teacher: choose one that has")
    pixels, labels = images.dataset_of(workdir).test.take(np.arange(count))
    normalized = data.normalize(pixels, description["mean"], description["std"])  # (B, H, W, C)

    maps_s = figures.attention_maps(student, variables, normalized)  # {"group1": (B, h, w), ...}
    # A teacher may take images of another size, or normalize them differently.
    of_teacher = teacher.normalize(pixels)
    maps_t = figures.attention_maps(teacher.module, teacher.variables, of_teacher, kind="sum", p=2)
    points = zip(maps_s, maps_t, strict=True)  # in the order of the networks
    found = {s: agreement.correlation(maps_s[s], maps_t[t]).tolist() for s, t in points}
    print("classes ", "  ".join(f"{label:>5}" for label in labels))
    for point, values in found.items():
        print(f"{point:<8}", "  ".join(f"{r:5.2f}" for r in values))
    return found


if __name__ == "__main__":
    main(sys.argv[1])
