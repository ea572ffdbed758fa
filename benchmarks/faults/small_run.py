"""A run that takes seconds: a network of 90 parameters on 60 digits.

    python -m benchmarks.faults.small_run WORKDIR CACHE EPOCHS FIGURES

Compiled programs are kept in CACHE; FIGURES is 0 or 1.
"""

import pathlib
import sys
from typing import Any

import flax.linen as nn

from at_jax import intermediates

__all__ = ["Network", "config", "lines", "state", "train"]


class Network(nn.Module):
    """A strided convolution, batch normalization and a classifier."""

    @nn.compact
    def __call__(self, x, *, train=False):  # (B, 16, 16, 1) -> (B, 10)
        """Logits of digits."""
        x = nn.Conv(4, (3, 3), strides=2)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        intermediates.tap(self, "only", x)
        return nn.Dense(10)(x.mean((1, 2)))


def config(cache: pathlib.Path, epochs: int = 4, figures: bool = False) -> Any:
    """Config of the run: 3 steps an epoch, a checkpoint after each."""
    from at_jax.training.config_files import load

    result = load("digits", "method=none")
    changes = {
        "epochs": epochs,
        "batch_size": 20,
        "compare": (),
        "data.train_examples": 60,
        "optimizer.drop_epochs": (),
        "runtime.checkpoint_every": 1,
        "runtime.compilation_cache": str(cache),
        "runtime.devices": 1,
        "runtime.figures": figures,
    }
    result.update_from_flattened_dict(changes)
    return result


def train(workdir: pathlib.Path, cache: pathlib.Path, **options: Any) -> dict[str, Any]:
    """Train, or resume; return the content of result.json."""
    from at_jax import loop

    return loop.train_and_evaluate(config(cache, **options), workdir, student=Network())


def lines(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without the speed, which differs from run to run."""
    from at_jax.training.files import run_files

    read = run_files.read_metrics(workdir)
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in read]


def state(workdir: pathlib.Path, which: str = "latest") -> tuple[int, dict[str, Any]]:
    """Step and arrays of a checkpoint: parameters, statistics, momentum."""
    from at_jax.training.files.checkpoints import Checkpoints

    with Checkpoints(workdir, create=False) as checkpoints:
        restored = getattr(checkpoints, which)(("params", "batch_stats", "training"))
    assert restored is not None, f"{workdir} has no checkpoint"
    return restored.step, restored.trees


if __name__ == "__main__":
    where, compiled, length, with_figures = sys.argv[1:]
    train(
        pathlib.Path(where),
        pathlib.Path(compiled),
        epochs=int(length),
        figures=with_figures == "1",
    )
