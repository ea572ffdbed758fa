"""Host time of a training step: shuffled indices, gathering, sharding, dispatch, metrics.

    python -m benchmarks.host_overhead [--model=wrn_16_1] [--batch=128] [--steps=20] [--rounds=5]

Times two loops around the same compiled step, interleaved in one process. The bare loop calls the step on
one batch that is already sharded. The trainer's loop takes every batch from 50,000 images. The goal is an
overhead of at most 5 % for a WRN-16-1. The last line printed is the result as JSON; --out also writes it
to a file.
"""

import json
import pathlib
import statistics
import tempfile
import time
from typing import Any

from absl import flags

from benchmarks import command

_MODEL = flags.DEFINE_string("model", "wrn_16_1", "Network.")
_BATCH = flags.DEFINE_integer("batch", 128, "Images per step.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 20, "Steps per timing.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timings of each loop.", lower_bound=1)
_OUT = flags.DEFINE_string("out", "", "JSON file for the result.")


def main() -> None:
    """Time both loops in turn, and print the result."""
    with tempfile.TemporaryDirectory() as workdir:
        trainer = _trainer(pathlib.Path(workdir))
        with trainer.logs[0] as log:
            log.open(0, {})
            result = _measure(trainer)
    print(json.dumps(result))
    if _OUT.value:
        pathlib.Path(_OUT.value).write_text(json.dumps(result, indent=2) + "\n")


def _trainer(workdir: pathlib.Path) -> Any:
    """Build the trainer of a data set of random images, of the size of CIFAR-10."""
    import numpy as np

    from at_jax import data
    from at_jax.distributed import devices
    from at_jax.training import config as configs
    from at_jax.training import setup, trainer
    from at_jax.training.components import networks
    from at_jax.training.components.arguments import Arguments
    from at_jax.training.files import run_files

    config = configs.default_config()
    config.student, config.method, config.batch_size = _MODEL.value, "none", _BATCH.value
    config.runtime.tensorboard = False
    settings = configs.settings_of(config)
    used = devices.select(settings.runtime.devices, settings.batch_size)
    student = networks.build(settings.student, 10, settings.dtype)
    rng = np.random.default_rng(0)
    split = data.Split(
        rng.integers(0, 256, (50_000, 32, 32, 3), np.uint8),
        rng.integers(0, 10, 50_000).astype(np.int32),
    )
    names = tuple(map(str, range(10)))
    dataset = data.Dataset("random", split, split, names, mean=(127.5,) * 3, std=(64.0,) * 3)
    run = setup.assemble(settings, dataset, student, settings.student, None, Arguments())
    run_files.claim(workdir, config.to_dict(), {})
    return trainer.Trainer([(run, workdir)], used)


def _measure(trainer: Any) -> dict[str, Any]:
    import jax

    from at_jax.distributed import devices
    from at_jax.training import resume

    run, used, steps = trainer.run, trainer.devices, _STEPS.value
    initial = resume.initial_state(run)
    states, key = devices.replicate(((initial,), jax.random.key(1)), used)
    fixed = devices.shard(trainer.batches(0, 1), len(used), axis=1)
    states, _ = jax.block_until_ready(trainer.train_steps(states, None, key, fixed))
    # The trainer treats its own first call as the one that compiles, and waits for it: not timed.
    states = trainer.advance(states, 2, None, key, lambda: False)

    bare, whole = [], []
    for _ in range(_ROUNDS.value):
        began = time.perf_counter()
        for _ in range(steps):
            states, _ = trainer.train_steps(states, None, key, fixed)
        jax.block_until_ready(states)
        bare.append((time.perf_counter() - began) / steps)

        end = int(states[0].step) + steps
        began = time.perf_counter()
        states = trainer.advance(states, end, None, key, lambda: False)
        jax.block_until_ready(states)
        whole.append((time.perf_counter() - began) / steps)

    began = time.perf_counter()
    for step in range(steps):
        devices.shard(trainer.batches(step, 1), len(used), axis=1)
    host = (time.perf_counter() - began) / steps
    # Ratios within each round: a machine that slows down affects both loops alike.
    ratio = statistics.median(w / b for w, b in zip(whole, bare, strict=True))
    return {
        "device": devices.describe(used),
        "jax": jax.__version__,
        "model": _MODEL.value,
        "batch": _BATCH.value,
        "bare_ms": round(1e3 * statistics.median(bare), 2),
        "trainer_ms": round(1e3 * statistics.median(whole), 2),
        "host_work_ms": round(1e3 * host, 3),
        "ratio": round(ratio, 4),
    }


if __name__ == "__main__":
    command.run(main)
