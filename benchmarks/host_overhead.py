"""What the host adds to a training step: shuffled index, gather, sharding, dispatch, metrics.

    python -m benchmarks.host_overhead [--model=wrn_16_1] [--batch=128] [--steps=20] [--rounds=5]

Two loops over the same compiled step, interleaved in one process: bare (one batch, already cut, called
again and again) and the trainer's own, which draws every batch from 50,000 images. The goal is 5 % at
most on a WRN-16-1. Prints one line, and writes it as JSON with --out.
"""

import json
import pathlib
import statistics
import tempfile
import time

from absl import app, flags, logging

_MODEL = flags.DEFINE_string("model", "wrn_16_1", "The network.")
_BATCH = flags.DEFINE_integer("batch", 128, "Images a step.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 20, "Steps timed at a time.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Times that both loops are timed.", lower_bound=1)
_OUT = flags.DEFINE_string("out", "", "A JSON file for the result.")


def _trainer(workdir: pathlib.Path):
    """The trainer of a CIFAR-sized set of random images."""
    import numpy as np

    from at_jax import data, experiment, parallel, trainer
    from configs import base

    config = base.get_config()
    config.student, config.method, config.batch_size = _MODEL.value, "none", _BATCH.value
    config.runtime.tensorboard = False
    rng = np.random.default_rng(0)
    split = data.Split(
        rng.integers(0, 256, (50_000, 32, 32, 3), np.uint8),
        rng.integers(0, 10, 50_000).astype(np.int32),
    )
    names = tuple(map(str, range(10)))
    dataset = data.Dataset("random", split, split, names, mean=(127.5,) * 3, std=(64.0,) * 3)
    devices = parallel.devices(config.runtime.devices, config.batch_size)
    student = experiment.build(config, config.student, dataset.num_classes)
    run = experiment.assemble(config, dataset, student, config.student, None)
    return trainer.Trainer([(config, workdir, run)], devices)


def main(_: list[str]) -> None:
    """Time both loops in turn."""
    import jax

    from at_jax import parallel, state

    logging.set_verbosity(logging.WARNING)
    with tempfile.TemporaryDirectory() as workdir:
        trainer = _trainer(pathlib.Path(workdir))
    run, devices, steps = trainer.run, trainer.devices, _STEPS.value
    fresh = state.create(
        run.objective, run.optimizer, jax.random.key(0), run.dataset.image_shape, run.taps
    )
    states, key = parallel.replicate(((fresh,), jax.random.key(1)), devices)
    trainer.ledgers[0].open(0)
    fixed = parallel.shard(trainer.batches(0, 1), len(devices), axis=1)
    states, _ = jax.block_until_ready(trainer.train_steps(states, None, key, fixed))
    # Once through the trainer, untimed: it waits for what it takes to be the compiling step.
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
        parallel.shard(trainer.batches(step, 1), len(devices), axis=1)
    host = (time.perf_counter() - began) / steps
    # Round by round, so that a machine that slows down meanwhile slows both loops.
    ratio = statistics.median(w / b for w, b in zip(whole, bare, strict=True))
    result = {
        "device": parallel.describe(devices),
        "jax": jax.__version__,
        "model": _MODEL.value,
        "batch": _BATCH.value,
        "bare_ms": round(1e3 * statistics.median(bare), 2),
        "trainer_ms": round(1e3 * statistics.median(whole), 2),
        "host_work_ms": round(1e3 * host, 3),
        "ratio": round(ratio, 4),
    }
    print(json.dumps(result))
    if _OUT.value:
        pathlib.Path(_OUT.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
