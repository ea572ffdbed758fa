"""PyTorch's DataLoader: prints its versions, then the seconds of the batches that a line asks for.

It imports nothing of at_jax, so that it runs in an environment of its own.
"""

import contextlib
import itertools
import json
import platform
import sys
import time

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _torchvision():
    """Import torchvision, also a build for CUDA next to a PyTorch for CPU, which lacks two operators."""
    import torch

    with contextlib.suppress(RuntimeError):
        import torchvision

        return torchvision
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

    return torchvision


def _batches(loader):
    for _ in itertools.count():
        yield from loader


def main() -> None:
    """Arguments: folder, batch size, worker processes."""
    import torch

    torchvision = _torchvision()
    from torchvision import datasets, transforms

    folder, batch_size, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    prepare = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(_MEAN, _STD),
        ]
    )
    images = datasets.ImageFolder(f"{folder}/train", prepare)
    loader = torch.utils.data.DataLoader(
        images,
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=True,
    )
    batches = _batches(loader)
    next(batches)
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    print(json.dumps({"Python (torch)": platform.python_version(), **versions}), flush=True)
    for line in sys.stdin:
        wait, count = map(int, line.split())
        for _ in range(wait):
            next(batches)
        began = time.perf_counter()
        for _ in range(count):
            next(batches)
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
