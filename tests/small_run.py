"""A complete run in miniature: digits, two tiny networks, a few images."""

import json
import pathlib

import numpy as np

from at_jax import data
from configs import digits


def config(**changes):
    """configs/digits.py, reduced. `changes` are dotted keys with "__" for ".": at__beta=3.0."""
    result = digits.get_config("student=wrn_10_0.25,teacher=wrn_10_0.5,method=at")
    result.epochs = 2
    result.batch_size = 20
    result.data.train_examples = 60  # 3 steps an epoch
    result.teacher.epochs = 1
    result.teacher.drop_epochs = ()
    result.teacher.train_examples = 60
    result.optimizer.drop_epochs = (1,)
    result.runtime.checkpoint_every = 1
    result.runtime.compilation_cache = ""
    result.runtime.figures = False
    result.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return result.lock()


def with_teacher(finished, **changes):
    """The same, with the teacher of a finished run."""
    return config(teacher__checkpoint=str(finished[0] / "teacher"), **changes)


def lines_of(workdir: pathlib.Path) -> list[dict]:
    """Lines of metrics.jsonl without the speed, which differs from run to run."""
    lines = [json.loads(text) for text in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def count_lines(workdir: pathlib.Path) -> int:
    """Number of whole lines of metrics.jsonl, which a run may be writing or not have begun."""
    path = workdir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def recorded(workdir: pathlib.Path) -> dict:
    """Components that were passed to a run, from config.json."""
    return json.loads((workdir / "config.json").read_text())["arguments"]


def arrays(size=16, classes=3, images=60, seed=0):
    """A data set of random images; the first row of pixels encodes the class."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 100, (2 * images, size, size, 1)).astype(np.uint8)
    y = np.arange(2 * images) % classes
    x[:, 0] = (80 * y)[:, None, None]
    return data.from_arrays(x[:images], y[:images], x[images:], y[images:], class_names=list("abc"))
