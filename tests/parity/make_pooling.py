"""Write pooling.npz with PyTorch in float64. Run manually; the suite reads the file.

    /tmp/torchenv/bin/python tests/parity/make_pooling.py

The environment is that of make_fixture.py. The loss is that of RepDistiller and mdistiller, reimplemented:
the larger features are average-pooled to the size of the smaller ones before they are squared; per example
(their code takes the mean). Arrays are NHWC in the file and NCHW in this script.
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

SEED = 20201107
# name: height (and width) of the student and of the teacher, channels of both
SIZES = {
    "larger_student": (8, 4, 3, 5),
    "larger_teacher": (7, 14, 6, 2),
    "overlapping_windows": (8, 6, 4, 4),
    "uneven_windows": (5, 12, 3, 3),
}


def at(x):
    """Normalized, flattened map of x (B, C, H, W)."""
    return functional.normalize(x.pow(2).mean(1).flatten(1))


def at_loss(x, y):
    size = min(x.shape[2], y.shape[2])
    x, y = (functional.adaptive_avg_pool2d(a, size) if a.shape[2] > size else a for a in (x, y))
    return (at(x) - at(y)).pow(2).mean(1)


def fixture():
    random = np.random.default_rng(SEED)
    arrays = {}
    for name, (size_s, size_t, c_s, c_t) in SIZES.items():
        a_s = random.normal(size=(2, size_s, size_s, c_s))
        a_t = random.normal(size=(2, size_t, size_t, c_t))
        x = torch.from_numpy(a_s).requires_grad_()
        y = torch.from_numpy(a_t)
        value = at_loss(x.permute(0, 3, 1, 2), y.permute(0, 3, 1, 2))
        (gradient,) = torch.autograd.grad(value.sum(), x)
        arrays |= {f"{name}/student": a_s, f"{name}/teacher": a_t}
        arrays |= {f"{name}/value": value.detach().numpy(), f"{name}/gradient": gradient.numpy()}
    return arrays


if __name__ == "__main__":
    origin = {"torch_version": np.array(torch.__version__), "seed": np.array(SEED)}
    path = Path(__file__).parent / "pooling.npz"
    np.savez_compressed(path, **origin, **fixture())
    print(path.name, path.stat().st_size, "bytes")
