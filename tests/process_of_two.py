"""One of two processes that meet, take one step of a tiny network together and disagree on purpose.

Started by test_processes.py: process_of_two.py PORT INDEX FOLDER. What it found goes to FOLDER.
"""

import json
import pathlib
import pickle
import sys

import jax

from at_jax import launch, parallel, processes


def step(devices):
    """The step of test_parallel.py at four devices, this process feeding its half of the batch."""
    import tiny

    from at_jax.terms import Attention, Distillation

    terms = {"distillation": Distillation(), "attention": Attention()}
    objective = tiny.objective(tiny.TinyNet(bn_axis_name=parallel.AXIS_NAME), **terms)
    bound = tiny.bound(objective, beta=1e3, axis_name=parallel.AXIS_NAME)
    start = tiny.create(objective), tiny.teacher_variables(objective), jax.random.key(3)
    index, count = processes.index_and_count()
    part = slice(index * 16 // count, (index + 1) * 16 // count)
    half = {name: x[part] for name, x in tiny.batch(16).items()}
    shards = parallel.shard(half, parallel.local_count(devices))
    start = parallel.replicate(start, devices)
    return jax.device_get(parallel.map_train(bound, devices)(*start, shards))


def said(function, *arguments):
    """The error that a function raises, as text."""
    try:
        function(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def fail_where(here):
    """Fail on this process alone, where `here`."""

    def function():
        if here:
            raise ValueError("no such folder: mount it")

    return function


def main(port, index, folder):
    launch.initialize(f"127.0.0.1:{port}", 2, index, seconds=60)
    devices = parallel.devices(0, 16)
    found = {
        "index_and_count": processes.index_and_count(),
        "devices": parallel.describe(devices),
        "order": [device.process_index for device in devices],
        "any_of": [processes.any_of(False), processes.any_of(index == 1)],
        "from_primary": processes.from_primary(lambda: {"of": index}),
        "primary fails": said(processes.from_primary, fail_where(True)),
        "unexpected": said(processes.from_primary, lambda: {}["key"]),
        "on_all": processes.on_all(lambda: index),
        "one fails": said(processes.on_all, fail_where(index == 1)),
        "same": said(processes.check_same, {"seed": 0, "epochs": 3}),
        "differs": said(processes.check_same, {"seed": index, "epochs": 3}),
        "batch": said(parallel.devices, 2, 6),
    }
    (folder / f"found{index}.json").write_text(json.dumps(found))
    (folder / f"step{index}.pickle").write_bytes(pickle.dumps(step(devices)))
    if index == 1:
        launch.leave(7)  # as where it alone fails
    try:
        processes.any_of(True)
    except Exception:
        launch.leave(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3]))
