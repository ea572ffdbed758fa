"""Attention transfer from EfficientNet-Lite0 (ImageNet weights) to a small ResNet with few labels.

    python -m benchmarks.efficientnet_transfer DIR --out OUT --select
    python -m benchmarks.efficientnet_transfer DIR --out OUT --beta 100 --seeds 0 1 2

DIR is an image folder DIR/{train,test}/<class>/ with CIFAR-10's images. They are enlarged from 32 to 96
pixels. The teacher knows other classes, so only its attention maps are used. ``--select`` trains with
several values of beta and measures the error on training images that no run trains on; the other command
measures the student alone and with transfer on test images. Results: results/efficientnet_transfer.md.
"""

import argparse
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from at_jax import data, loop
from at_jax.intermediates import tap
from at_jax.models import imagenet, layers
from at_jax.models.resnet import ResNetBlock
from at_jax.training import config

SIDE, LABELED, HELD_OUT, TESTED = 96, 500, 1000, 2000
# Passes over the labeled images in an epoch of the trainer, which evaluates once an epoch.
REPEATS = 8
BETAS = (10.0, 100.0, 1000.0)
# Resolutions 24, 12 and 6 of both networks.
POINTS = ("stage1<-stage2", "stage2<-stage3", "stage3<-stage4")


class SmallResNet(nn.Module):
    """A stem of stride 2 and three basic blocks of stride 2, with 32, 64 and 128 channels."""

    num_classes: int = 10
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Classify images."""
        x = layers.conv(16, 3, stride=2, init_mode="fan_out", name="conv1")(images)
        norm: dict[str, Any] = {"dtype": x.dtype, "axis_name": self.bn_axis_name, "name": "bn1"}
        x = nn.relu(layers.batch_norm(x, train=train, **norm))
        for stage, features in enumerate((32, 64, 128), start=1):
            block = ResNetBlock(
                features, 2, False, bn_axis_name=self.bn_axis_name, name=f"b{stage}"
            )
            x = block(x, train)
            tap(self, f"stage{stage}", x)
        return layers.classifier(jnp.mean(x, axis=(1, 2)), self.num_classes, jnp.float32)


def read(folder: pathlib.Path, per_class: slice) -> tuple[np.ndarray, np.ndarray]:
    """Read the images of a range of each class: uint8 ``(N, 96, 96, 3)`` and labels ``(N,)``."""
    from PIL import Image

    images, labels = [], []
    for label, directory in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for file in sorted(directory.iterdir())[per_class]:
            with Image.open(file) as image:
                large = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            images.append(np.asarray(large))
            labels.append(label)
    return np.stack(images), np.array(labels)


def load(folder: pathlib.Path, select: bool) -> data.Dataset:
    """Labeled images, and those that are evaluated: held-out training images, or test images."""
    labeled, held_out = LABELED // 10, HELD_OUT // 10
    images, labels = read(folder / "train", slice(labeled))
    evaluated = (
        read(folder / "train", slice(labeled, labeled + held_out))
        if select
        else read(folder / "test", slice(TESTED // 10))
    )
    repeated = np.tile(images, (REPEATS, 1, 1, 1)), np.tile(labels, REPEATS)
    return data.from_arrays(*repeated, *evaluated, name="cifar10-96")


def configure(args: argparse.Namespace, seed: int, beta: float) -> Any:
    """Config of one run."""
    made = config.default_config()
    made.method = "at"
    made.seed = seed
    made.at.beta = beta
    made.transfer.points = POINTS
    made.batch_size = 50
    made.epochs = args.epochs
    made.optimizer.schedule = "cosine"
    made.optimizer.drop_epochs = ()
    # The teacher's normalization, for both networks.
    made.data.mean, made.data.std = imagenet.MEAN, imagenet.STD
    made.data.pad = 12  # 4 of 32 pixels
    made.runtime.figures = False
    made.runtime.tensorboard = False
    return made


def main(argv: list[str] | None = None) -> None:
    """Train and print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--select", action="store_true", help="choose beta on held-out images")
    parser.add_argument("--beta", type=float, default=100.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args(argv)
    dataset, teacher = load(args.folder, args.select), imagenet.efficientnet_lite0()
    runs = [(0, beta) for beta in BETAS] if args.select else [(s, args.beta) for s in args.seeds]
    for seed, beta in runs:
        made = configure(args, seed, beta)
        is_first = beta == BETAS[0]
        made.compare = ("none",) if not args.select or is_first else ()
        workdir = args.out / f"{'select' if args.select else 'test'}-seed{seed}-beta{beta:g}"
        found = loop.train_and_evaluate(
            made, workdir, student=SmallResNet(), teacher=teacher, dataset=dataset
        )
        print(f"seed {seed} beta {beta:g}: {found['test_error']:.2f}", flush=True)


if __name__ == "__main__":
    main()
